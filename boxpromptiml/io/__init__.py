"""The only code that opens files: images, weights, JSON, YAML, atomic writes."""
