"""Overlays on images, and plots of scores."""
