"""One-line messages, with a remedy, for wrong command lines; no messages that help nobody."""

import logging
import re
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, NoReturn

from boxpromptiml.io.progress import is_quiet

_MAX_LENGTH = 600
_REFUSED = re.compile(r"Importing '([\w.]+)' is not allowed")  # jsonargparse's words
_UNKNOWN = re.compile(
    r"(?:unrecognized arguments: |does not accept (?:option|nested key) '|Option ')(-{0,2}[\w.+-]+)"
)
_FIELD = re.compile(r'Parser key "([^"]+)":\s*')
_TYPE = re.compile(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.*?)\]\.?)")
_GIVEN = re.compile(r"Given value: (.*)", re.DOTALL)
_RANGE = re.compile(r" \[type=\w+, input_value=(.*), input_type=\w+\]$")  # pydantic's words
_NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Not a valid subclass|"
    r"Subclass types expect one of|a class path \(str\)|a dict |Expected a path but|"
    r"\d+ validation errors? for |For further information visit |$"
)
_ADVERTS = (  # beginnings of what Lightning logs
    "💡",
    "Loading `train_dataloader` to estimate",
    "TPU available",
    "`weights_only` was not set",
)
_SETTLED = (  # regular expressions of whole beginnings
    ".*args parameter is intended to run from within Python",  # that is the point here
    ".*isinstance\\(treespec, LeafSpec\\)",
    ".*is smaller than the logging interval",
    ".*It is recommended to use `self.log\\(.*sync_dist=True",  # our scores are reduced already
    "Checkpoint directory .* exists and is not empty",  # nothing in it is lost
    ".*does not have many workers which may be a bottleneck",
    "You're resuming from a checkpoint that ended before the epoch ended",  # ours is resumable
    "No seed found, seed set to",  # Lightning logs the seed too
    ".*ckpt_path=.last.\\) is set, but there is no last checkpoint",  # the end of `fit` says it
    "You're using the WeightAveraging callback, but loading",  # a checkpoint's weights are averages
)


class OneLineErrors(ArgumentParser):
    """Mixin for jsonargparse's parsers: a mistake is one line on stderr, and status 2.

    Takes what they take; `--help` shows types as `PlainHelp` does.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from boxpromptiml.cli.plain_help import PlainHelp  # noqa: PLC0415

        super().__init__(*args, **{"formatter_class": PlainHelp} | kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the mistake and exit with status 2.

        Args:
            message: jsonargparse's own, which may have many lines.
            ex: The underlying error; names the parser of the subcommand.

        Raises:
            SystemExit: Always, with status 2.
        """
        parser = getattr(ex, "subcommand_parser", None) or self
        program = parser.prog.replace(" [options]", "")
        line = one_line(message, _names(parser))
        own = program.endswith(".py")  # the parser of one class, which has no --help
        where = "" if own else f" (see {program} --help)"
        sys.stderr.write(f"error: {line}{where}\n")
        raise SystemExit(2)


def one_line(message: str, known: Iterable[str]) -> str:
    """A message of jsonargparse as one line, with the nearest known name.

    Args:
        message: The message, of one or more lines.
        known: Names of options, dotted, with or without leading dashes.

    Example:
        >>> one_line("unrecognized arguments: --treshold=3", ["--threshold", "--tile"])
        'unrecognized arguments: --treshold=3; did you mean --threshold?'
    """
    if text := refusal(message):
        return text
    found = _FIELD.match(message)
    field, rest = (found[1], message[found.end() :]) if found else ("", message)
    lines = list(dict.fromkeys(_informative(rest)))
    specific = [line for line in lines if not line.startswith("expected ")]
    text = ": ".join(filter(None, (field, "; ".join(specific or lines) or " ".join(rest.split()))))
    if not specific and (given := _GIVEN.search(rest)):
        text += f", got {given[1].strip()!r}"
    if len(text) > _MAX_LENGTH:
        text = f"{text[:_MAX_LENGTH]} ..."
    wrong = _UNKNOWN.search(message)
    nearest = _nearest(wrong[1], known) if wrong else None
    return f"{text}; did you mean {nearest}?" if nearest else text


def refusal(message: str) -> str | None:
    """A better message for jsonargparse's refusal of an import; None for other messages.

    Example:
        >>> refusal("Importing 'os.system' is not allowed, denied by ...")[:37]
        "the configuration names 'os.system', "
    """
    found = _REFUSED.search(message)
    return found and (
        f"the configuration names {found[1]!r}, which is none of the classes of boxpromptiml or "
        "Lightning that it may name, and could run any code. If you know and trust it, add "
        f"--trust={found[1]}"
    )


def suggestion(word: str, known: Iterable[str]) -> str:
    """The text `; did you mean 'X'?` for the nearest known word, or an empty text.

    Example:
        >>> suggestion("lokalize", ["localize", "fit"])
        "; did you mean 'localize'?"
        >>> suggestion("train", ["localize"])
        ''
    """
    found = get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _informative(text: str) -> Iterator[str]:
    """The lines that describe the mistake, without those that repeat types."""
    lines = iter(text.splitlines())
    for raw in lines:
        line = raw.strip().removeprefix("- ").strip()
        if _NOISE.match(line):
            if line.startswith("Given value:"):
                return  # it may have lines of its own
            continue
        line = _RANGE.sub(r", got \1", line)
        if line.startswith("Problem with given class_path"):
            line = f"{line} {next(lines, '').strip()}"
        if "String should match pattern" in line:  # pydantic's, of an ImportPath
            line = "expected an import path such as mylab.Own"
        if kind := _TYPE.match(line):
            name = kind[1] or f"one of {kind[2]}"
            if name == "NoneType":
                continue
            rest = line[kind.end() :].strip().replace("Got value:", "got")
            line = f"expected {name}{f', {rest}' if rest else ''}"
        yield line


def _names(parser: ArgumentParser) -> list[str]:
    """All options of a parser, and the dotted keys of its defaults, which configurations use."""
    options = [word for action in parser._actions for word in action.option_strings]
    defaults = getattr(parser, "get_defaults", None)
    keys = list(defaults().keys()) if defaults else []
    return [*keys, *options]


def _nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name closest to a wrong one; only its last part if only that was given."""
    bare = wrong.lstrip("-")
    names = {name.lstrip("-"): name for name in known if not name.endswith("+")}
    if found := get_close_matches(bare, names, n=1, cutoff=0.75):
        return names[found[0]]
    begun = [n for n in names if n.startswith(bare) or re.match(rf"{re.escape(n)}[^.]", bare)]
    if found := get_close_matches(bare, begun, n=1, cutoff=0.5):
        return names[found[0]]
    parts = {name.rpartition(".")[2] for name in names}
    last = get_close_matches(bare.rpartition(".")[2], parts, n=1, cutoff=0.75)
    return last[0] if last and last[0] != bare.rpartition(".")[2] else None


def quiet_libraries() -> None:
    """Suppress adverts of libraries, and advice that `fit` already follows, in this process."""
    for pattern in _SETTLED:
        warnings.filterwarnings("ignore", pattern)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_of_use)
    if is_quiet():
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_ADVERTS)
