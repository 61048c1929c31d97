"""Studies: several trainings that differ in one thing, compared in one table."""
