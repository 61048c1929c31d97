"""Which images exist, what is known about them, and where their files are."""
