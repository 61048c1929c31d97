"""Divide an image into regions: superpixels, segmentation networks, SAM."""
