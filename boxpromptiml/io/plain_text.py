"""Untrusted text for people to read."""

import unicodedata

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
