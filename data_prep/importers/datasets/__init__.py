"""One module per public dataset: which file is an image, which its mask."""
