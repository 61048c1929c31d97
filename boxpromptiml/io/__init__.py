"""The only code that opens files: images, weights, JSON, and writes that are whole or absent."""
