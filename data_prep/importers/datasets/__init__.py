"""One module a public dataset: which file is an image, which its mask."""
