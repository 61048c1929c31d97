"""A folder with tampered/, authentic/, masks/ and boxes.json.

```
tampered/<kind>_<n>.jpg   masks/<stem>.png (0 | 255)   authentic/*.jpg   boxes.json (COCO, XYWH)
``` Masks and boxes join images by name, never by position. A tampered image without a mask is kept
(it can be trained on with boxes); one without an entry in boxes.json has unknown boxes, not an
empty list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.folders import is_hidden
from boxpromptiml.manifests.manifest import confined
from boxpromptiml.records import Box, Sample, Split
from data_prep.annotations import AnnotatedImage, coco
from data_prep.annotations.fitting import View, fit_boxes
from data_prep.importers import Imported
from data_prep.importers.checking import check_name, refuse_empty, relative_name
from data_prep.importers.raw import common_root

_KINDS = ("splice", "copymove", "removal")
_FOLDERS = ("tampered", "authentic", "masks")
_BOXES = "boxes.json"


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What the user decides of an import.

    Attributes:
        dataset: Name of the dataset in the manifest.
        split: Split of all images.
        mask_threshold: Mask values above this are manipulated; None for 0 | 255.
        verify: Decode images and masks as well.
        view: The picture that boxes.json refers to, for images with an EXIF orientation.
        follow_links: Name the files that links point to.
    """

    dataset: str
    split: Split = "train"
    mask_threshold: int | None = None
    verify: bool = False
    view: View | None = None
    follow_links: bool = False


def import_folder(source: Path, options: FolderOptions) -> Imported:
    """Import the layout; without `verify` only headers and hashes of images are read.

    Raises:
        UserError: If the folder holds neither tampered/ nor authentic/, or boxes.json is not COCO.
    """
    if not any((source / name).is_dir() for name in ("tampered", "authentic")):
        raise UserError(
            f"{source}: holds neither tampered/ nor authentic/; of a plain folder of photographs "
            "`boxpromptiml annotate` makes a manifest"
        )
    rejected: list[RejectedInput] = []
    folder = _Folder(source, options, rejected)
    annotated = _annotated(source, rejected)
    masks = folder.by_stem("masks")
    samples: list[Sample] = []
    for label, name in ((1, "tampered"), (0, "authentic")):
        for stem, path in folder.by_stem(name).items():
            mask = masks.pop(stem, None) if label else None
            try:
                samples.append(folder.sample(path, label, mask, annotated))
            except RejectedInput as error:
                rejected.append(error)
    rejected += [
        RejectedInput(mask, "no_image", "no tampered image is named so") for mask in masks.values()
    ]
    rejected += [
        RejectedInput(source / name, "no_image", f"{_BOXES} names an image that is not there")
        for name in annotated
        if name not in folder.seen
    ]
    notes = {"clipped_boxes": folder.clipped, "warnings": _unclaimed(source)}
    return Imported(samples, rejected, notes, folder.root)


def _annotated(source: Path, rejected: list[RejectedInput]) -> dict[str, AnnotatedImage]:
    """The annotations of boxes.json by the path of the image."""
    path = source / _BOXES
    if not path.exists():
        return {}
    found = coco.read(path)
    rejected += found.rejected
    return {one.name: one for one in found.images}


def _unclaimed(source: Path) -> list[str]:
    """A warning about files outside the layout, which may contain masks."""
    others = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(source.iterdir())
        if path.name not in (*_FOLDERS, _BOXES) and not is_hidden(path.name)
    ]
    if not others:
        return []
    some = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return [f"not read: {some}; this layout is tampered/, authentic/, masks/ and {_BOXES}"]


@dataclass
class _Folder:
    """The source, the user's options, and the results so far.

    Attributes:
        root: Folder that holds all files; above the source where links are followed.
        rejected: Unusable files.
        seen: Paths of all files, below the source.
        clipped: Number of clipped boxes.
    """

    source: Path
    options: FolderOptions
    rejected: list[RejectedInput]

    def __post_init__(self) -> None:
        self.root = self.source
        if self.options.follow_links:
            folders = [self.source / name for name in _FOLDERS]
            files = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
            self.root = common_root(self.source, files)
        self.seen: set[str] = set()
        self.clipped = 0

    def by_stem(self, name: str) -> dict[str, Path]:
        """Files of a sub-folder by stem; of two with the same stem the later is rejected.

        Links that lead out of the source are rejected, as in every later job.
        """
        folder = self.source / name
        try:
            if not self.options.follow_links:
                confined(self.source, name)
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        except UserError:
            message = "is a link that leads out of the source; give the folder itself"
            self.rejected.append(RejectedInput(folder, "not_a_file", message))
            return {}
        found: dict[str, Path] = {}
        for path in paths:
            self.seen.add(path.relative_to(self.source).as_posix())
            if is_hidden(path.name):
                continue
            if path.stem in found:
                first = found[path.stem].name
                self.rejected.append(RejectedInput(path, "duplicate", f"same name as {first}"))
            else:
                found[path.stem] = path
        return found

    def sample(
        self, path: Path, label: int, mask: Path | None, annotated: Mapping[str, AnnotatedImage]
    ) -> Sample:
        """The sample of an image.

        Raises:
            RejectedInput: If image or mask cannot be used.
        """
        check_name(path.name, path)
        name, stem = path.relative_to(self.source).as_posix(), path.stem
        key, one = f"{path.parent.name}/{stem}", annotated.get(name)
        if self.options.follow_links:
            path, mask = path.resolve(), mask.resolve() if mask else None
        info = images.probe(path)
        if mask is not None and images.probe(mask).size != info.size:
            raise RejectedInput(mask, "size_mismatch", f"the mask is not of {name}'s size")
        boxes: tuple[Box, ...] | None = () if one is None and not label else None
        origin = None
        if one is not None:
            boxes = self._boxes(one, name, info)
            if not label and boxes:
                message = "is in authentic/, but boxes.json marks manipulated areas"
                raise RejectedInput(path, "authentic_has_boxes", f"{message}: which is right?")
            boxes = boxes if label else ()
            origin = one.origin if label and boxes is not None and one.origin != "unsaid" else None
        if self.options.verify:
            images.read_image(path)
            if mask is not None:
                refuse_empty(images.read_mask(mask, self.options.mask_threshold), mask)
        kind, dataset = stem.split("_")[0], self.options.dataset
        return Sample(
            id=f"{dataset}/{key}",
            dataset=dataset,
            split=self.options.split,
            group=f"{dataset}/{stem}",
            image=relative_name(path, self.root),
            size=info.size,
            label=label,
            boxes=boxes,
            kind=kind if kind in _KINDS else None,
            mask=relative_name(mask, self.root) if mask else None,
            mask_threshold=self.options.mask_threshold if mask else None,
            image_sha256=info.sha256,
            box_origin=origin,
        )

    def _boxes(
        self, annotated: AnnotatedImage, name: str, info: images.ImageInfo
    ) -> tuple[Box, ...] | None:
        """The boxes of an image; None if they may be incomplete."""
        try:
            fitted = fit_boxes(annotated, name, info.size, info.orientation, self.options.view)
        except RejectedInput as error:
            self.rejected.append(error)
            return None
        self.rejected += fitted.rejected
        self.clipped += fitted.clipped
        return fitted.boxes if annotated.annotated and not fitted.rejected else None
