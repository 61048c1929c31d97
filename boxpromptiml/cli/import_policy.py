"""What a configuration may contain: our classes and Lightning's, in plain YAML.

A `class_path` in YAML imports a module and calls what it finds there, so an untrusted file could
run any code. jsonargparse checks every path against these lists, nested ones included, and checks
again where the object found was defined. The YAML itself is checked (`io.strict_yaml`), and older
names are accepted.
"""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from boxpromptiml.errors import UserError
from boxpromptiml.io.old_names import renamed
from boxpromptiml.io.strict_yaml import check_yaml
from boxpromptiml.io.trust import trust

_ALLOWED = (
    "boxpromptiml.DistillTask",
    "boxpromptiml.ImageLabelTask",
    "boxpromptiml.OwnConfig",
    "boxpromptiml.SegmenterConfig",
    "boxpromptiml.data",
    "boxpromptiml.models.configs.OwnConfig",
    "boxpromptiml.segmenters.config",
    "boxpromptiml.tasks",
    "lightning.fabric.accelerators",  # where some of Lightning's classes are defined
    "lightning.fabric.plugins",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
)
_DENIED = (
    "*",
    "lightning.pytorch.callbacks.LambdaCallback",  # calls whatever function it is given
    "lightning.pytorch.callbacks.lambda_function",
)
_MAX_INTEGER = 10**18
_load_yaml = get_loader("yaml")

TRUST_HELP = (
    "--trust NAME: a module, or a class or function in it, whose code this command may run if an "
    "option, a configuration or a checkpoint names it; it may be given several times. Modules are "
    "found in the working directory too (docs/extend.md)"
)


def restrict_imports(trusted: Sequence[str] = ()) -> None:
    """Refuse class paths in configurations and on the command line, except allowed ones.

    YAML with aliases, repeated keys or deep nesting is refused too (`strict_yaml.check_yaml`).

    This holds for the whole process and cannot be undone. Configurations are read from local
    files only.

    Args:
        trusted: Modules or classes to allow as well, such as `mylab.tasks`.

    Raises:
        UserError: If one of them is not an import path, or belongs to jsonargparse itself.
    """
    try:
        set_parsing_settings(
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,  # importing LightningCLI turns it on
            import_path_denylist=list(_DENIED),
            import_path_allowlist=[*_ALLOWED, *trusted],
        )
    except ValueError as error:
        raise UserError(f"--trust={','.join(trusted)}: {error}") from error
    set_loader("yaml", _load, (yaml.YAMLError,))
    trust(trusted)


def take_trust(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The values of all `--trust` of a command line, and the other words.

    Example:
        >>> take_trust(["--out", "x", "--trust", "mylab", "--trust=other.Net"])
        (['mylab', 'other.Net'], ['--out', 'x'])
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", action="append", default=[])
    own, rest = parser.parse_known_args(list(words))
    return own.trust, rest


def _load(text: str) -> Any:
    """Parse a configuration file, or one value of the command line."""
    if text.startswith('["'):  # a list of names; in JSON they need not be text
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    try:
        check_yaml(text)
    except UnicodeEncodeError as error:  # a name that is not UTF-8
        raise yaml.YAMLError(str(error)) from error
    return _none_for_null(renamed(_load_yaml(text)))


def _none_for_null(value: Any) -> Any:
    """Read a value `None` of a mapping, as Python programs write it, as no value.

    Raises:
        yaml.YAMLError: For a number that no option can have, and few libraries can read.
    """
    if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        raise yaml.YAMLError("a number has more than 18 digits")
    if isinstance(value, list):
        return [_none_for_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: None if v == "None" else _none_for_null(v) for k, v in value.items()}
