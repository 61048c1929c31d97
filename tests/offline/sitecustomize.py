"""Python imports this by itself when it starts with this folder on PYTHONPATH."""

import no_network  # noqa: F401 - it acts when it is imported
