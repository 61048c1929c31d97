"""The checks of `python -m data_prep check`: of one image, between images, of whole datasets."""
