"""Segment Anything's automatic masks as one map of regions."""

from importlib.metadata import version

import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from segment_anything.utils.amg import rle_to_mask

from boxpromptiml import geometry
from boxpromptiml.io.weights import require_device
from boxpromptiml.records import Description, ImageArray, RegionArray
from boxpromptiml.segmenters.labels import painted


class SamSegmenter:
    """SAM's automatic masks; small masks cover large ones, so that parts stay visible.

    SAM shrinks every image to its own size (1024) and finds no finer edges, so the masks are made
    at that size and the map is resized to the stored size.

    Args:
        sam: The network; it is frozen, put in evaluation mode and moved to `device`.
        model_type: Name of the architecture, for the settings.
        weights_sha256: SHA-256 of the weights file, for the settings.
        device: Where the network runs, such as `cpu` or `cuda:0`.
        points_per_side: Prompts in a row and in a column of the grid, 1 to 64: beyond about 90 the
            generator fails on a GPU (issue 17 of facebookresearch/segment-anything).
        min_iou: Masks must have a higher predicted IoU.
        min_stability: Masks must be at least as stable when SAM's threshold moves.

    Raises:
        UserError: If there is no such device.
    """

    def __init__(
        self,
        sam: Sam,
        model_type: str,
        weights_sha256: str,
        device: str = "cpu",
        points_per_side: int = 32,
        min_iou: float = 0.88,
        min_stability: float = 0.95,
    ) -> None:
        require_device(device)
        self._generator = SamAutomaticMaskGenerator(
            sam.eval().requires_grad_(False).to(device),
            points_per_side=points_per_side,
            points_per_batch=16 if torch.device(device).type == "cpu" else 64,  # 16: less memory
            pred_iou_thresh=min_iou,
            stability_score_thresh=min_stability,
            output_mode="uncompressed_rle",  # hundreds of masks a photograph
        )
        self._side = int(sam.image_encoder.img_size)
        self._model_type = model_type
        self._weights_sha256 = weights_sha256
        self._settings = {
            "points_per_side": points_per_side,
            "min_iou": min_iou,
            "min_stability": min_stability,
        }

    @property
    def settings(self) -> Description:
        """Weights, versions and every setting that changes a region, without the device."""
        return {
            "name": "sam-regions",
            "model_type": self._model_type,
            "weights_sha256": self._weights_sha256,
            "settings": dict(self._settings),
            "versions": {
                "segment-anything": version("segment-anything"),
                "torch": torch.__version__.split("+")[0],
            },
        }

    def regions(self, image: ImageArray) -> RegionArray:
        """(H, W) region numbers of an image (H, W, 3), 0 where SAM finds nothing."""
        small = geometry.shrink(image, self._side)
        masks = sorted(self._generator.generate(small), key=lambda mask: -mask["area"])
        labels = painted((rle_to_mask(mask["segmentation"]) for mask in masks), small.shape[:2])
        return geometry.nearest(labels, image.shape[:2])
