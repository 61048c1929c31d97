"""The console script. Verbs are imported when they are called, so `--help` is immediate."""

import importlib
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import entry_points
from typing import Any

from boxpromptiml import __version__
from boxpromptiml.cli.process import log_to_stderr, prepare_process, take_verbosity
from boxpromptiml.errors import EXIT_FAILED, EXIT_OK, EXIT_WRONG_USE, UserError, shortened
from boxpromptiml.io.processes import end_with_parent

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
    "calibrate": (
        "image probabilities and false-alarm rates of a checkpoint, on validation images",
        "boxpromptiml.evaluation.calibrate:calibrate",
    ),
    "report": (
        "report.html of a run: how good, how sure, where it fails",
        "boxpromptiml.report.build:report",
    ),
    "study": (
        "several trainings that differ in one thing, in one table with intervals",
        "boxpromptiml.studies.run:study",
    ),
    "annotate": (
        "draw boxes in the browser, a folder of photographs to a manifest",
        "boxpromptiml.annotate.command:annotate",
    ),
    "page": (
        "the same page to try things: upload, draw a box, see pseudo-mask and map",
        "boxpromptiml.annotate.command:page",
    ),
    "complexity": (
        "parameters, multiply-adds, latency and memory of a network",
        "boxpromptiml.evaluation.complexity:complexity",
    ),
    "info": (
        "what a checkpoint, a manifest or a folder of results is",
        "boxpromptiml.evaluation.info:info",
    ),
    "export": ("a checkpoint as .onnx or .safetensors", "boxpromptiml.inference.export:export"),
    "experiments": (
        "the configurations that travel with the package; `experiments copy NAME`",
        "boxpromptiml.cli.experiments:experiments",
    ),
    "completion": (
        "commands and options for the Tab key of bash and zsh",
        "boxpromptiml.cli.completion:completion",
    ),
}
_PACKAGES = {  # dependencies that not every command needs: by module, the name for pip
    "albumentations": "albumentations",
    "defusedxml": "defusedxml",
    "jinja2": "jinja2",
    "lightning": "lightning",
    "matplotlib": "matplotlib",
    "segment_anything": "segment-anything",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "skimage": "scikit-image",
    "starlette": "starlette",
    "timm": "timm",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "uvicorn": "uvicorn",
    "wandb": "wandb",
}
_NO_MEMORY = "can't allocate memory"  # PyTorch's words
_LESS_MEMORY = "of the machine or its GPU: try a smaller --batch_size (of `fit`: --data.batch_size)"
_COPY = "boxpromptiml.cli.experiments:copy"
_DATA = "raw data to training-ready manifests, as python -m data_prep"


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        args: Command line without the program's name; the process's own by default.

    Returns:
        0 all good; 1 failed; 2 wrong usage; 3 finished, but some inputs were rejected.
    """
    words, _ = take_verbosity(sys.argv[1:] if args is None else args)
    if words[:1] == ["data"]:
        return _data(sys.argv[1:] if args is None else args)
    texts = {verb: text for verb, (text, _) in _VERBS.items()} | _TRAINER_VERBS | {"data": _DATA}
    lines = "\n".join(f"  {verb:<11} {text}" for verb, text in texts.items())
    usage = (
        "usage: boxpromptiml COMMAND ...\n\n"
        "Weakly supervised image manipulation localization.\n\n"
        f"commands (each has --help):\n{lines}\n\n"
        "-q before or after a command: errors and results alone; -v: more, and tracebacks\n"
    )
    return dispatch("boxpromptiml", texts, usage, _start, args)


def _start(words: list[str]) -> int:
    verb, *rest = words
    if words[:2] == ["experiments", "copy"]:
        return call(_COPY, words[2:], "boxpromptiml experiments copy", as_positional=True)
    if verb in _VERBS:
        return call(_VERBS[verb][1], rest, f"boxpromptiml {verb}", as_positional=verb == "info")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # weights come from local files only
    from boxpromptiml.cli.lightning import run_trainer  # noqa: PLC0415

    run_trainer(words)
    return EXIT_OK


def _data(words: Sequence[str]) -> int:
    """Run `data_prep`, which the package does not import: its installation names it."""
    for entry in entry_points(group="boxpromptiml.commands", name="data"):
        rest = list(words)
        rest.remove("data")  # the command; an option's value may be called so as well
        status: int = entry.load()(rest, "boxpromptiml data")
        return status
    return _fail("data_prep is not installed; install boxpromptiml again")


def dispatch(
    program: str,
    commands: Collection[str],
    usage: str,
    start: Callable[[list[str]], int],
    args: Sequence[str] | None,
) -> int:
    """Dispatch a command; also handles help, version and unknown commands.

    Args:
        program: Its name, for messages.
        commands: Their names.
        usage: The text of --help.
        start: Runs a command line, which begins with the command, and returns its exit status.
        args: Command line without the program's name; the process's own by default.

    Returns:
        The exit status.
    """
    try:
        prepare_process()
    except FileNotFoundError:
        return _fail("the working directory has been deleted; change to another one")
    words, level = take_verbosity(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(usage)
        return EXIT_OK if words else EXIT_WRONG_USE
    if words[0] == "--version":
        sys.stdout.write(f"boxpromptiml {__version__}\n")
        return EXIT_OK
    if words[0] not in commands:
        from boxpromptiml.cli.messages import suggestion  # noqa: PLC0415

        near = suggestion(words[0], commands)
        return _fail(f"no command {words[0]!r}{near} (see {program} --help)", EXIT_WRONG_USE)
    return run(lambda: start(words), level)


def run(command: Callable[[], int], level: int = logging.INFO) -> int:
    """Run a command; a user's mistake becomes one line on stderr instead of a traceback.

    Args:
        command: Returns its exit status.
        level: Of the log messages to show; DEBUG shows the traceback of a mistake too.

    Returns:
        Its exit status; 1 after a mistake or a full disk, 130 after Ctrl-C.

    Raises:
        ValueError: If a command raised one that no user's mistake caused: a bug keeps its
            traceback.
    """
    log_to_stderr(level)
    end_with_parent()
    try:
        status = _status(command)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        logging.getLogger(__name__).debug("where it happened:", exc_info=error)
        name = _PACKAGES[package]
        return _fail(f"{name} is not installed: pip install {name}")
    except ValueError as error:
        mistake = _mistake_behind(error)
        if mistake is None:
            raise
        logging.getLogger(__name__).debug("where it happened:", exc_info=error)
        return _fail(str(mistake))
    except BrokenPipeError:  # what reads our output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # disk full, read-only folder
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is finished stays\n")
        return 130


def _fail(message: str, status: int = EXIT_FAILED) -> int:
    """Print a mistake and return the exit status."""
    sys.stderr.write(f"error: {shortened(message)}\n")
    return status


def _status(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED
    except (RuntimeError, MemoryError) as error:
        if str(error).startswith("Symlink loop"):  # `Path.resolve`, until Python 3.13
            raise UserError(f"links in a circle: {error}") from error
        if _wants_memory(error):
            raise UserError(f"there is not enough memory, {_LESS_MEMORY}") from error
        raise


def _wants_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of a GPU."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or _NO_MEMORY in str(error)


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The first UserError in a chain of causes: jsonargparse wraps errors of constructors."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def call(target: str, args: Sequence[str], prog: str, as_positional: bool = False) -> int:
    """Parse `args` for the function `module:name`, call it, return its exit status.

    The function's signature and docstring are its command line. It may return None for 0.
    `as_positional`: arguments without a default are given without their name.
    """
    from jsonargparse import ArgumentParser, auto_cli  # noqa: PLC0415

    from boxpromptiml.cli.import_policy import (  # noqa: PLC0415
        TRUST_HELP,
        restrict_imports,
        take_trust,
    )
    from boxpromptiml.cli.messages import OneLineErrors  # noqa: PLC0415
    from boxpromptiml.cli.words import (  # noqa: PLC0415
        check_values,
        complete,
        read_none,
        with_underscores,
    )
    from boxpromptiml.io.old_names import renamed_words  # noqa: PLC0415

    class Parser(OneLineErrors, ArgumentParser):
        """jsonargparse's, for one command."""

    module, name = target.split(":")
    function = getattr(importlib.import_module(module), name)
    trusted, rest = take_trust(with_underscores(args))
    forwards = "trust" in inspect.signature(function).parameters  # to the commands that it starts
    restrict_imports(() if forwards else trusted)
    given = with_underscores(args) if forwards else rest
    words = complete(read_none(renamed_words(given, prog)), function)
    check_values(words)
    status: Any = auto_cli(
        function, words, as_positional=as_positional, parser_class=Parser, prog=prog,
        allow_abbrev=False, epilog=None if forwards else TRUST_HELP,
    )  # fmt: skip
    return EXIT_OK if status is None else int(status)
