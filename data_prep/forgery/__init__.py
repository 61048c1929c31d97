"""Synthetic forgeries of any folder of photographs."""
