"""Datasets and the data module. They know files."""
