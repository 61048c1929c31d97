"""A folder with tampered/, authentic/, masks/ and boxes.json.

```
tampered/<kind>_<n>.jpg   masks/<stem>.png (0 | 255)   authentic/*.jpg   boxes.json (COCO, XYWH)
```
Masks and boxes join images by name, never by position. A tampered image without a mask is kept (it
can train from boxes); one without an entry in boxes.json has unknown boxes, not none.
"""

from pathlib import Path

from boxpromptiml import images
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.records import Box, Sample, Split
from data_prep.boxes import read_coco
from data_prep.importers import Imported

_KINDS = ("splice", "copymove", "removal")


def import_folder(source: Path, dataset: str, split: Split, mask_threshold: int | None) -> Imported:
    """Read the layout; nothing but headers and hashes is read of the images.

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
            image_boxes = boxes.pop(relative, None) if label else ()
            try:
                samples.append(
                    _sample(source, path, dataset, split, label, mask, image_boxes, mask_threshold)
                )
            except RejectedInput as error:
                rejected.append(error)
    rejected += [
        RejectedInput(mask, "no_image", "no tampered image is named so") for mask in masks.values()
    ]
    rejected += [
        RejectedInput(source / name, "no_image", "boxes.json names an image that is not there")
        for name in boxes
    ]
    return Imported(samples, rejected)


def _boxes(source: Path, rejected: list[RejectedInput]) -> dict[str, tuple[Box, ...]]:
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
    boxes: tuple[Box, ...] | None,
    mask_threshold: int | None,
) -> Sample:
    info = images.probe(path)
    if mask is not None and images.probe(mask).size != info.size:
        raise RejectedInput(mask, "size_mismatch", f"the mask is not of {path.name}'s size")
    kind = path.stem.split("_")[0]
    return Sample(
        id=f"{dataset}/{path.parent.name}/{path.stem}",
        dataset=dataset,
        split=split,
        group=path.stem,
        image=path.relative_to(source).as_posix(),
        size=info.size,
        label=label,
        boxes=boxes,
        kind=kind if kind in _KINDS else None,
        mask=mask.relative_to(source).as_posix() if mask else None,
        mask_threshold=mask_threshold if mask else None,
        image_sha256=info.sha256,
    )
