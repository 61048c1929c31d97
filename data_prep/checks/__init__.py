"""What `python -m data_prep check` looks for: in one image, between images, in the whole."""
