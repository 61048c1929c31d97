"""Networks. They know tensors only."""
