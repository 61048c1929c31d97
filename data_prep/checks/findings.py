"""A finding of a check, and the texts of all reasons."""

from typing import Literal, NamedTuple

Severity = Literal["rejected", "warning"]

# Headings of the lists of reasons; other reasons are those of `boxpromptiml.io.images`.
TITLES = {
    "authentic_has_boxes": "Labelled authentic, but has boxes",
    "authentic_has_mask": "Labelled authentic, but its mask marks pixels",
    "bad_manifest": "The manifest cannot be read; nothing in it was checked",
    "bad_row": "Invalid row of a manifest (a box outside the image, a duplicate id, ...)",
    "bad_path": "The path leads out of its folder",
    "box_covers_image": "A box covers almost the whole image and is useless",
    "box_far_from_mask": "A box far larger than its mask, or where the mask marks nothing",
    "changed": "Not the file that was imported",
    "duplicate": "The same file more than once",
    "duplicate_across_splits": "The same file in two splits",
    "empty_manifest": "A manifest without any image",
    "empty_mask": "Labelled manipulated, but its mask marks no pixel",
    "group_across_splits": "A group of siblings in two splits",
    "leak": "A property of the files separates the classes",
    "made_from_another_split": "Made from an image of another split",
    "manipulated_without_boxes": "Manipulated and annotated, but without any box",
    "mask_not_binary": "A mask with more than two values, without a declared threshold",
    "mask_outside_boxes": "More than a tenth of the mask lies outside the boxes",
    "missing": "The file is missing",
    "near_duplicate": "Nearly the same picture in two splits",
    "near_duplicate_across_datasets": "Nearly the same picture in two datasets of one split",
    "not_annotated": "Manipulated, with neither boxes nor a mask (not a confirmed authentic image)",
    "size_mismatch": "Not of the size in the manifest",
    "stale_pseudo_mask": "The pseudo-mask does not match its sidecar and the manifest",
    "truncated_or_corrupt": "The file is damaged",
    "unlabelled": "Labelled neither authentic nor manipulated",
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
