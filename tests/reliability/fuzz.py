"""Coverage-guided fuzzing of the decoder and of every parser, for a night.

Needs atheris (Linux, CPython 3.11 or later; `pip install atheris`). From the repository root:

    python -m tests.reliability.fuzz decoder -max_total_time=600
    python -m tests.reliability.fuzz coco corpus/ -max_total_time=600

What follows the target's name is libFuzzer's; it begins from sound files, in a folder of its own if
none is named. A case that raises anything but our own errors, takes
more than 5 s or 1 GB is written to crash-*; run it again by naming that file.
"""

import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def main(words: Sequence[str]) -> int:
    """Fuzz one target until libFuzzer stops."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["boxpromptiml", "data_prep", "PIL", "defusedxml"]):
        from tests.reliability import targets
    known = {"decoder": targets.decoder} | {name: t for name, (_, t) in targets.TARGETS.items()}
    if not words or words[0] not in known:
        print(f"{__doc__}\ntargets: {', '.join(known)}", file=sys.stderr)
        return 2
    folder, corpus = (Path(tempfile.mkdtemp(prefix=f"fuzz-{what}-")) for what in ("work", "seeds"))
    seeds = targets.pictures() if words[0] == "decoder" else [targets.TARGETS[words[0]][0]]
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        targets.accepts(known[words[0]], data, folder)

    options = [
        f"-artifact_prefix={Path.cwd()}/",
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-max_len=65536",
    ]
    atheris.Setup([words[0], *options, *words[1:], str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
