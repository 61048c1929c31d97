"""Pages for a browser, made of Jinja templates, and untrusted text in them."""

import unicodedata

from jinja2 import Environment, PackageLoader, StrictUndefined

_DIRECTION_MARKS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def visible(text: str) -> str:
    r"""Text with control characters and marks of writing direction spelt out.

    Both could make a name look like another, or reorder the text around it.

    Example:
        >>> visible("photo\u202egnp.exe")
        'photo\\u202egnp.exe'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{ord(c):04x}" if c in _DIRECTION_MARKS or unicodedata.category(c) == "Cc" else c
        for c in text
    )


def page_environment(package: str, folder: str = "templates") -> Environment:
    """Templates that escape what they print, and spell out its control characters by `visible`.

    A name that a template uses and nobody gives is an error.

    Args:
        package: Import path of the package.
        folder: Of the templates, below the package.
    """
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
