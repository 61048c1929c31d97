"""`python -m boxpromptiml`, the same as the console script."""

import sys

# `-m` puts the working directory first, where an untrusted numpy.py may lie beside the data. It is
# dropped before anything is imported from it, unless our own packages lie there.
_is_first = __name__ == "__main__" and not sys.flags.safe_path
if _is_first and sys.path[0] != __file__.rpartition("/boxpromptiml/")[0]:
    del sys.path[0]

from boxpromptiml.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
