"""Columbia uncompressed splices of four cameras; masks are colours, saved as JPEG."""

from collections.abc import Iterator
from pathlib import Path

from boxpromptiml.io.images import read_image
from boxpromptiml.records import MaskArray
from data_prep.importers.layout import DatasetLayout, RawItem, Tree


def read_edge_mask(path: Path) -> MaskArray:
    """Green is spliced, red is host; JPEG leaves a little of both, so the larger wins.

    Raises:
        RejectedInput: If the image cannot be read.
    """
    rgb, _ = read_image(path)
    return rgb[..., 1] > rgb[..., 0]


def _find(tree: Tree) -> Iterator[RawItem]:
    spliced = tree.by_key(r"4cam_splc/([^/]+)\.tif")
    masks = tree.by_key(r"4cam_splc/edgemask/([^/]+)_edgemask\.jpg")
    for key, image, mask in tree.pair(spliced, masks):
        yield RawItem(f"4cam_splc/{key}", image, 1, mask, "splice")
    for key, image in tree.by_key(r"4cam_auth/([^/]+)\.tif").items():
        scene = key.partition("_sub_")[0]  # canonxt_38_sub_09
        yield RawItem(f"4cam_auth/{key}", image, 0, group=f"columbia/{scene}")


COLUMBIA = DatasetLayout(
    name="columbia",
    layout="4cam_splc/*.tif, 4cam_splc/edgemask/*_edgemask.jpg, 4cam_auth/*.tif",
    polarity="converted: green (spliced) above red (host) is manipulated",
    find=_find,
    expected={"manipulated": 180, "authentic": 183},
    convert=read_edge_mask,
    ignored=r"4cam_auth/edgemask/.*",
)
