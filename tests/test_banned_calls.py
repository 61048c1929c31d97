"""What ruff's banned-api cannot see: methods by name, and the one place that may open images."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    p for folder in ("boxpromptiml", "data_prep") for p in (ROOT / folder).rglob("*.py")
)
METHODS = {
    "extractall": "archives are untrusted: stream their members",
    "load_from_checkpoint": "runs what the checkpoint names: use inference.checkpoint",
    "unpack_archive": "archives are untrusted: stream their members",
    "imread": "use boxpromptiml.io.images",
    "imdecode": "use boxpromptiml.io.images",
}
OPENERS = {"boxpromptiml/io/images.py", "boxpromptiml/io/jpeg.py"}  # the latter reads headers only


def calls(source: str) -> list[tuple[str, str, int]]:
    """(object, method, line) of every call of an attribute."""
    return [
        (ast.unparse(node.func.value), node.func.attr, node.lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def offences(source: str, name: str) -> list[str]:
    every = calls(source)
    found = [f"{name}:{line}: {METHODS[m]}" for _, m, line in every if m in METHODS]
    found += [
        f"{name}:{line}: images are opened in boxpromptiml.io.images only"
        for owner, method, line in every
        if owner.endswith("Image") and method == "open" and name not in OPENERS
    ]
    found += [
        f"{name}:{line}: np.load unpickles unless allow_pickle=False"
        for owner, method, line in every
        if owner in ("np", "numpy") and method == "load" and "allow_pickle=False" not in source
    ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_calls_what_runs_strangers_code(path: Path) -> None:
    assert offences(path.read_text(), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    "line",
    [
        "tar.extractall(x)",
        "Task.load_from_checkpoint(p)",
        "Image.open(p)",
        "np.load(p)",
        "cv2.imread(p)",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert len(offences(line, "somewhere.py")) == 1
