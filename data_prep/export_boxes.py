"""`python -m data_prep export-boxes`: the boxes of a manifest as COCO JSON."""

import sys
from pathlib import Path

from boxpromptiml.io.files import write_json
from boxpromptiml.manifests.coco import to_coco
from boxpromptiml.manifests.manifest import read_manifest


def export_boxes(manifest: Path, out: Path) -> None:
    """Write the boxes of a manifest as COCO, for Label Studio, CVAT, FiftyOne and pycocotools.

    Every image is listed, also those without boxes. `annotated` of an image says whether it was
    annotated, `box_origin` in the attributes of a box who drew it, `box_origin` of an image without
    boxes who found none. import-boxes reads these keys, other tools ignore them. Paths are relative
    to the manifest's image root.

    Args:
        manifest: Images and boxes.
        out: COCO file to write (.json).

    Raises:
        UserError: If the manifest cannot be read.
    """
    source = read_manifest(manifest)
    write_json(out, to_coco(source.samples))
    boxes = sum(len(sample.boxes or ()) for sample in source.samples)
    root = (source.path.parent / source.header.image_root).resolve()
    sys.stdout.write(f"{out}: {len(source.samples)} images below {root}, {boxes} boxes\n")
