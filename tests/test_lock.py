"""requirements.lock is in step with pyproject.toml; `.ci/lock` renews it."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# One entry a package: its pin on a line of its own, the hashes on the lines that follow.
ENTRIES = re.findall(r"^([\w.-]+)==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)",
                     (ROOT / "requirements.lock").read_text(), re.MULTILINE)  # fmt: skip
PINS: dict[str, Version] = {
    canonicalize_name(name): Version(version) for name, version, _ in ENTRIES
}


def demanded(extra: str | None = None) -> Iterator[Requirement]:
    """The dependencies, or those of an extra, also through `boxpromptiml[other]`."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in map(Requirement, lines):
        if requirement.name != PROJECT["name"]:
            yield requirement
        for other in requirement.extras if requirement.name == PROJECT["name"] else ():
            yield from demanded(other)


DEMANDED = [*demanded(), *demanded("test")]


@pytest.mark.parametrize("requirement", DEMANDED, ids=str)
def test_what_is_demanded_is_locked_within_its_bounds(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in PINS, "run .ci/lock"
    assert requirement.specifier.contains(PINS[name]), f"{PINS[name]}: run .ci/lock"


def test_every_line_of_the_lock_is_a_pin_with_hashes() -> None:
    """Else pip would install what nobody has looked at, or refuse the file."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith((" ", "#"))]
    assert len(pins) == len(PINS) > len(DEMANDED)
    assert all(re.fullmatch(r"(\s*--hash=sha256:[0-9a-f]{64}( \\)?\n)+", e[2]) for e in ENTRIES)


def test_releases_with_known_holes_are_not_locked() -> None:
    assert PINS["lightning"] >= Version("2.6.6")  # 2.6.2 and 2.6.3 were malware
    assert PINS["pytorch-lightning"] >= Version("2.6.6")
    assert PINS["torch"] >= Version("2.10")
    assert PINS["filelock"] >= Version("3.20")
