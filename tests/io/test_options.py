"""Options without effect are refused, by every command."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, get_args

import pytest

from boxpromptiml.cli import _VERBS
from boxpromptiml.errors import UserError
from boxpromptiml.io.options import Need, needs, needs_of
from data_prep.__main__ import _JOBS

TARGETS = {verb: target for verb, (_, target) in (_VERBS | _JOBS).items()}

# Options that always act, whatever the others are, and (after the bar) those that the command
# checks by what it finds in files or by several options at once. A new option belongs here, or into
# a rule beside its command.
FREE = {
    "demo": "out seed",
    "localize": "tile copy_move overlays device segmenter runtime precision isolate threads"
    " checkpoint report engine | threshold fpr",
    "evaluate": "preset threshold split resamples seed | size",
    "robustness": "checkpoint split conditions threshold batch_size device seed segmenter",
    "calibrate": "checkpoint out split method folds batch_size device copy_move flips",
    "report": "compare split checkpoint out device",
    "study": "out seeds only jobs split trust",
    "annotate": "summary",
    "page": "checkpoint images teacher copies port device",
    "complexity": "size device repeats out",
    "info": "",
    "experiments": "",
    "completion": "",
    "export": "| half",
    "import": "split name verify follow_links | mask_threshold",
    "forgeries": "images manifest recipe seed split name regions authentic quality max_side"
    " min_side group_by show num_workers | host_quality region_quality style objects varied",
    "cam-boxes": "boxes box_fraction batch_size device segmenter",
    "boxes": "preset looseness tightness merge overlook_area overlook_chance per_image seed",
    "import-boxes": "labels empty join view",
    "export-boxes": "format view class_name",
    "protocol": "seed val_fraction",
    "wandb-artifact": "project",
    "check": "verify num_workers engine allow_remote",
    "pseudo-masks": "teacher copies min_score num_workers shard engine allow_remote",
}


def command(target: str) -> Callable[..., Any]:
    module, name = target.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def another(parameter: inspect.Parameter, values: tuple[object, ...]) -> object:
    """A value of a parameter for which a rule does not hold."""
    if not values:
        return parameter.default
    tried = (parameter.default, False, True, *get_args(parameter.annotation), "another")
    return next(value for value in tried if value not in values)


@pytest.mark.parametrize("verb", TARGETS)
def test_every_option_either_always_acts_or_has_a_rule(verb: str) -> None:
    function = command(TARGETS[verb])
    parameters = inspect.signature(function).parameters.values()
    optional = {p.name for p in parameters if p.default is not inspect.Parameter.empty}
    ruled = {option for need in needs_of(function) for option in need.options}
    free = set(FREE[verb].replace("|", "").split())
    assert optional == ruled | free
    assert not ruled & free


@pytest.mark.parametrize(
    ("verb", "need"),
    [(verb, need) for verb, target in TARGETS.items() for need in needs_of(command(target))],
    ids=lambda value: value if isinstance(value, str) else value.other,
)
def test_every_rule_is_one_line_before_anything_is_done(verb: str, need: Need) -> None:
    function = command(TARGETS[verb])
    parameters = inspect.signature(function).parameters
    required = {
        name: object() for name, p in parameters.items() if p.default is inspect.Parameter.empty
    }
    lacking = {need.other: another(parameters[need.other], need.values)}
    for option in need.options:
        with pytest.raises(UserError, match=rf"^--{option} has no effect with(out)? --") as raised:
            function(**(required | lacking | {option: object()}))
        assert f"--{need.other}" in str(raised.value)


def test_what_acts_or_stays_at_its_default_passes() -> None:
    @needs("depth width", "kind", "box", "cube")
    @needs("shade", "colour")
    def draw(
        kind: str, depth: int = 1, width: int = 1, colour: str | None = None, shade: float = 0.5
    ) -> str:
        """Draw."""
        return f"{kind} {depth} {width} {colour} {shade}"

    assert draw("circle") == "circle 1 1 None 0.5"
    assert draw("circle", depth=1) == "circle 1 1 None 0.5"
    assert draw("box", 3, width=2, colour="red", shade=0.1) == "box 3 2 red 0.1"
    for given, message in (
        (
            {"kind": "circle", "width": 2},
            "--width has no effect with --kind circle; leave one of them out",
        ),
        ({"kind": "box", "shade": 0.1}, "--shade has no effect without --colour"),
    ):
        with pytest.raises(UserError, match=message):
            draw(**given)  # type: ignore[arg-type]
    assert draw.__doc__ == "Draw."
