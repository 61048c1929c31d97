"""Teachers: from boxes to pseudo-masks."""
