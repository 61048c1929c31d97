"""The console script. Verbs are imported when they are called, so `--help` is immediate."""

import importlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin

from boxpromptiml import __version__
from boxpromptiml.errors import EXIT_FAILED, EXIT_OK, EXIT_WRONG_USE, UserError

_TRAINER_VERBS = {
    "fit": "train a localizer (LightningCLI)",
    "validate": "score a checkpoint on the validation images",
    "test": "score a checkpoint on the test images",
    "predict": "write a checkpoint's maps for a manifest",
}
_VERBS = {
    "demo": (
        "the whole path on bundled photographs, ends with report.html",
        "boxpromptiml.demo:demo",
    ),
    "localize": (
        "probability maps, masks and overlays of any images",
        "boxpromptiml.inference.localize:localize",
    ),
    "evaluate": (
        "score any method's probability maps against a manifest",
        "boxpromptiml.evaluation.evaluate:evaluate",
    ),
    "robustness": (
        "score a checkpoint on recompressed, blurred, noisy, rescaled, shared images",
        "boxpromptiml.evaluation.robustness:robustness",
    ),
    "report": (
        "report.html of a run: how good, how sure, where it fails",
        "boxpromptiml.report.build:report",
    ),
    "study": (
        "several trainings that differ in one thing, in one table with intervals",
        "boxpromptiml.studies.run:study",
    ),
    "page": (
        "a page in the browser: draw a box, see pseudo-mask and map",
        "boxpromptiml.page.command:page",
    ),
    "export": (
        "a checkpoint as .onnx or .safetensors",
        "boxpromptiml.inference.export:export",
    ),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        args: Command line without the program's name; the process's own by default.

    Returns:
        0 all good; 1 failed; 2 wrong usage; 3 finished, but some inputs were rejected.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return EXIT_OK if words else EXIT_WRONG_USE
    if words[0] == "--version":
        sys.stdout.write(f"boxpromptiml {__version__}\n")
        return EXIT_OK
    verb, rest = words[0], words[1:]
    if verb in _TRAINER_VERBS:
        return run(lambda: _trainer_verb(words))
    if verb in _VERBS:
        return run(lambda: call(_VERBS[verb][1], rest, f"boxpromptiml {verb}"))
    sys.stderr.write(f"boxpromptiml: no command {verb!r}\n\n{_usage()}")
    return EXIT_WRONG_USE


def run(command: Callable[[], int]) -> int:
    """Run a command; a user's mistake becomes one line on stderr instead of a traceback."""
    _log_to_stderr()
    try:
        return command()
    except ValueError as error:
        mistake = _mistake_behind(error)
        if mistake is None:
            raise
        sys.stderr.write(f"error: {mistake}\n")
        return EXIT_FAILED
    except OSError as error:  # disk full, read-only folder
        sys.stderr.write(f"error: {error.filename or 'file'}: {error.strerror or error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is finished stays\n")
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The first UserError in a chain of causes: jsonargparse wraps errors of constructors."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _log_to_stderr() -> None:
    """Send our own log messages to stderr; other libraries configure theirs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for name in ("boxpromptiml", "data_prep"):
        logging.getLogger(name).handlers = [handler]


def call(target: str, args: Sequence[str], prog: str) -> int:
    """Parse `args` for the function `module:name`, call it, return its exit status.

    The function's signature and docstring are its command line. It may return None for 0.
    """
    from jsonargparse import auto_cli  # noqa: PLC0415

    from boxpromptiml.cli.import_policy import restrict_imports  # noqa: PLC0415
    from boxpromptiml.io.old_names import renamed_words  # noqa: PLC0415

    restrict_imports()
    module, name = target.split(":")
    function = getattr(importlib.import_module(module), name)
    words = complete(renamed_words(args), function)
    status: Any = auto_cli(function, args=words, as_positional=False, prog=prog)
    return EXIT_OK if status is None else int(status)


def complete(args: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """The words as jsonargparse accepts them: `--images a b` as a list, `--verify` as true.

    Example:
        >>> def f(images: list[str], out: str, verify: bool = False): ...
        >>> complete(["--images", "a", "b", "--verify", "--out", "c"], f)
        ['--images=["a", "b"]', '--verify=true', '--out', 'c']
        >>> def g(seeds: list[int] | None = None): ...
        >>> complete(["--seeds", "0", "1"], g)
        ['--seeds=[0, 1]']
    """
    types = {f"--{p.name}": p.annotation for p in inspect.signature(function).parameters.values()}
    words: list[str] = []
    rest = list(args)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        item = _list_item(types.get(word))
        if item is not None and not value.startswith("["):
            values = [value] if value else []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            numbers = f"[{', '.join(values)}]"
            words.append(f"{word}={numbers if item in (int, float) else json.dumps(values)}")
        elif types.get(word) is bool and not equals and (not rest or rest[0].startswith("--")):
            words.append(f"{word}=true")
        else:
            words.append(f"{word}{equals}{value}")
    return words


def _list_item(annotation: object) -> object:
    """The item type X of `list[X]` and `list[X] | None`; None for other types."""
    kinds = (annotation, *get_args(annotation))
    return next((get_args(kind)[0] for kind in kinds if get_origin(kind) is list), None)


def _usage() -> str:
    rows = [(verb, text) for verb, (text, _) in _VERBS.items()] + list(_TRAINER_VERBS.items())
    lines = "\n".join(f"  {verb:<11} {text}" for verb, text in rows)
    return (
        "usage: boxpromptiml COMMAND ...\n\n"
        "Weakly supervised image manipulation localization.\n\n"
        f"commands (each has --help):\n{lines}\n\n"
        "data preparation: python -m data_prep --help\n"
    )


def _trainer_verb(args: list[str]) -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # weights come from local files only
    from boxpromptiml.cli.lightning import run_trainer  # noqa: PLC0415

    run_trainer(args)
    return EXIT_OK
