"""Synthetic forgeries, pure functions of an image and a random generator."""
