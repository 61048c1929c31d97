"""A folder with tampered/, authentic/, masks/ and boxes.json.

```
tampered/<kind>_<n>.jpg   masks/<stem>.png (0 | 255)   authentic/*.jpg   boxes.json (COCO, XYWH)
```
Masks and boxes join images by name, never by position. A tampered image without a mask is kept (it
can train from boxes); one without an entry in boxes.json has unknown boxes, not none.
"""

from pathlib import Path

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.records import Sample, Split
from data_prep.annotations.coco import Annotated, read_coco
from data_prep.importers import Imported
from data_prep.importers.checking import refuse_empty, relative_name

_KINDS = ("splice", "copymove", "removal")
_NOTHING_THERE = Annotated((0, 0), ())  # an authentic image needs no annotation


def import_folder(
    source: Path, dataset: str, split: Split, mask_threshold: int | None, verify: bool = False
) -> Imported:
    """Read the layout; nothing but headers and hashes is read of the images.

    Args:
        verify: Decode images and masks as well.

    Raises:
        UserError: If the folder holds neither tampered/ nor authentic/.
    """
    tampered, authentic = source / "tampered", source / "authentic"
    if not tampered.is_dir() and not authentic.is_dir():
        raise UserError(f"{source}: holds neither tampered/ nor authentic/")
    rejected: list[RejectedInput] = []
    boxes = _boxes(source, rejected)
    masks = _by_stem(source / "masks", rejected)
    samples: list[Sample] = []
    for label, folder in ((1, tampered), (0, authentic)):
        for stem, path in _by_stem(folder, rejected).items():
            mask = masks.pop(stem, None) if label else None
            relative = path.relative_to(source).as_posix()
            annotated = boxes.pop(relative, None if label else _NOTHING_THERE)
            try:
                sample = _sample(
                    source, path, dataset, split, label, mask, annotated, mask_threshold
                )
                if verify:
                    _decode(path, mask, mask_threshold)
                samples.append(sample)
            except RejectedInput as error:
                rejected.append(error)
    rejected += [
        RejectedInput(mask, "no_image", "no tampered image is named so") for mask in masks.values()
    ]
    rejected += [
        RejectedInput(source / name, "no_image", "boxes.json names an image that is not there")
        for name in boxes
        if not (source / name).exists()
    ]
    return Imported(samples, rejected)


def _decode(path: Path, mask: Path | None, mask_threshold: int | None) -> None:
    images.read_image(path)
    if mask is not None:
        refuse_empty(images.read_mask(mask, mask_threshold), mask)


def _boxes(source: Path, rejected: list[RejectedInput]) -> dict[str, Annotated]:
    path = source / "boxes.json"
    if not path.exists():
        return {}
    boxes, bad = read_coco(path)
    rejected += bad
    return boxes


def _by_stem(folder: Path, rejected: list[RejectedInput]) -> dict[str, Path]:
    """Files by name without ending; of two with one stem the later is rejected."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.stem in found:
            first = found[path.stem].name
            rejected.append(RejectedInput(path, "duplicate", f"same name as {first}"))
        else:
            found[path.stem] = path
    return found


def _sample(
    source: Path,
    path: Path,
    dataset: str,
    split: Split,
    label: int,
    mask: Path | None,
    annotated: Annotated | None,
    mask_threshold: int | None,
) -> Sample:
    if not path.name.isprintable() or any(0xD800 <= ord(c) < 0xE000 for c in path.name):
        raise RejectedInput(path, "bad_name", "has a name that is not printable text; rename it")
    info = images.probe(path)
    if annotated is not None and annotated.size not in (info.size, _NOTHING_THERE.size):
        raise RejectedInput(
            path,
            "size_mismatch",
            f"is {info.size[1]} x {info.size[0]}, boxes.json says {annotated.size[1]:.0f} x "
            f"{annotated.size[0]:.0f}: were the boxes drawn on a rotated (EXIF) or resized copy?",
        )
    if mask is not None and images.probe(mask).size != info.size:
        raise RejectedInput(mask, "size_mismatch", f"the mask is not of {path.name}'s size")
    if not label and annotated is not None and annotated.boxes:
        message = "is in authentic/, but boxes.json marks manipulated areas: which is right?"
        raise RejectedInput(path, "authentic_has_boxes", message)
    kind = path.stem.split("_")[0]
    return Sample(
        id=f"{dataset}/{path.parent.name}/{path.stem}",
        dataset=dataset,
        split=split,
        group=f"{dataset}/{path.stem}",
        image=relative_name(path, source),
        size=info.size,
        label=label,
        boxes=annotated.boxes if annotated else None,
        kind=kind if kind in _KINDS else None,
        mask=relative_name(mask, source) if mask else None,
        mask_threshold=mask_threshold if mask else None,
        image_sha256=info.sha256,
    )
