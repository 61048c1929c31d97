"""A finding of a check, and the texts of all reasons."""

from typing import Literal, NamedTuple

Severity = Literal["rejected", "warning"]

# What a person reads above the list of a reason; others are those of `boxpromptiml.io.images`.
TITLES = {
    "authentic_has_boxes": "Authentic by its label, and yet it has boxes",
    "authentic_has_mask": "Authentic by its label, and yet its mask marks pixels",
    "bad_manifest": "The manifest cannot be read, nothing of it was checked",
    "bad_row": "A row of the manifest is wrong (a box out of the image, a duplicate id, ...)",
    "bad_path": "The path leads out of its folder",
    "box_covers_image": "A box covers almost all of the image and says nothing",
    "box_far_from_mask": "A box far larger than its mask, or where the mask marks nothing",
    "changed": "Not the file that was imported",
    "duplicate": "The same file more than once",
    "duplicate_across_splits": "The same file in two splits",
    "empty_manifest": "A manifest without any image",
    "empty_mask": "Manipulated by its label, and yet its mask marks no pixel",
    "group_across_splits": "A group of siblings in two splits",
    "leak": "A property of the files tells the classes apart",
    "manipulated_without_boxes": "Manipulated and annotated, but without any box",
    "mask_not_binary": "A mask of more than two values, and no threshold is declared",
    "mask_outside_boxes": "More than a tenth of the true mask lies outside the boxes",
    "missing": "The file is not there",
    "near_duplicate": "Nearly the same picture in two splits",
    "not_annotated": "Manipulated, and neither boxes nor a mask (not a confirmed authentic image)",
    "size_mismatch": "Not of the size that the manifest says",
    "stale_pseudo_mask": "The pseudo-mask is not what its sidecar and the manifest say",
    "truncated_or_corrupt": "The file is damaged",
    "unlabelled": "Neither authentic nor manipulated by its label",
}


class Finding(NamedTuple):
    """A problem with one file.

    Attributes:
        severity: `rejected` files cannot be used; a `warning` should be looked at.
        path: The file.
        reason: Short stable code.
        message: One sentence.
    """

    severity: Severity
    path: str
    reason: str
    message: str


def title(reason: str) -> str:
    """The meaning of a reason, as text."""
    return TITLES.get(reason, reason.replace("_", " ").capitalize())


def printable(text: str) -> str:
    r"""Text for a terminal, with control characters escaped.

    Example:
        >>> printable(f"a{chr(27)}[2Jb")
        'a\\x1b[2Jb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
