"""The checks of `python -m data_prep check`: single images, pairs of images, whole datasets."""
