"""The README for a package page, where links into the repository lead nowhere."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
REPOSITORY = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["urls"].get(
    "Repository"
)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def absolute(link: re.Match[str]) -> str:
    """A link into the repository: its address, or its text alone where no repository is known."""
    image, text, target = link.groups()
    if REPOSITORY:
        return f"{image}[{text}]({REPOSITORY}/{'raw' if image else 'blob'}/HEAD/{target})"
    return "" if image else text


setup(
    long_description=LINK.sub(absolute, (HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
