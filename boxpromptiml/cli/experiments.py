"""`boxpromptiml experiments`: the packaged experiments, listed or copied."""

import sys
from itertools import takewhile
from pathlib import Path

from boxpromptiml.errors import UserError
from boxpromptiml.io.experiments import packaged_experiments
from boxpromptiml.io.files import write_bytes


def experiments() -> None:
    """List the experiments that travel with the package, each with the first sentence of its file.

    `boxpromptiml fit --config NAME` and `study --file NAME` run one as it is; `boxpromptiml
    experiments copy NAME` makes a file to edit.
    """
    found = packaged_experiments()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        sys.stdout.write(f"{name:<{width}}  {_first_sentence(path)}\n")


def copy(name: str, out: Path | None = None) -> None:
    """Copy an experiment into the working directory.

    Args:
        name: Its name in the list of `boxpromptiml experiments`.
        out: File to write; by default the last part of the name, with .yaml.

    Raises:
        UserError: If there is no such experiment, or the file exists.
    """
    path = packaged_experiments().get(name.removesuffix(".yaml"))
    if path is None:
        raise UserError(f"no experiment {name!r}; `boxpromptiml experiments` lists all")
    target = Path(path.name) if out is None else out
    if target.exists():
        raise UserError(f"{target} exists; name another file with --out")
    write_bytes(target, path.read_bytes())
    sys.stdout.write(f"{target}\n")


def _first_sentence(path: Path) -> str:
    """The first sentence of the comment at the top of a file, without its full stop."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0].removesuffix(".")
