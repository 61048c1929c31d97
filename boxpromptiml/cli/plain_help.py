"""Help texts whose types read as a person would write them."""

import re
from argparse import Action

from jsonargparse import DefaultHelpFormatter

_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
# An innermost one; the limits have brackets in quotes only.
_LIMITED = re.compile(r"Annotated\[(\w+(?:\[[^\[\]]*\])?), (?:'[^']*'|[^'\[\]])*\]")


class PlainHelp(DefaultHelpFormatter):
    """jsonargparse's, without what only Python understands."""

    def _get_type_str(self, action: Action) -> str | None:
        text = super()._get_type_str(action)
        return None if text is None else plain_type(text)


def plain_type(text: str) -> str:
    """A type as jsonargparse prints it, without modules and limits.

    Example:
        >>> plain_type("Optional[Annotated[int, Ge(ge=0)]] | <class 'pathlib.Path'>")
        'Optional[int] | Path'
    """
    text, count = _CLASS.sub(r"\1", text), 1
    while count:
        text, count = _LIMITED.subn(r"\1", text)
    return text
