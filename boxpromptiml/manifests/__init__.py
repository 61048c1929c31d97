"""Which images exist, what is known of them, and where their files are."""
