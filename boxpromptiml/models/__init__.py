"""Networks and their configurations. They work on tensors and open no manifest."""
