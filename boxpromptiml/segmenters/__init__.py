"""Regions of an image, from the pixels alone, from segmentation networks or from SAM."""
