"""`python -m boxpromptiml`, the same as the console script."""

import sys

from boxpromptiml.cli import main

if __name__ == "__main__":
    sys.exit(main())
