"""LightningModules. They know loss, metrics and optimiser."""
