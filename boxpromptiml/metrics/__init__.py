"""Scores of probability maps, their intervals, and the files that hold them."""
