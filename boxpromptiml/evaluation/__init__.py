"""Scoring a method against manifests: matching, scores, robustness, runs."""
