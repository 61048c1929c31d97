"""`python -m data_prep JOB`: raw data to training-ready manifests."""

import sys
from collections.abc import Sequence

from boxpromptiml import __version__
from boxpromptiml.cli import call, run
from boxpromptiml.errors import EXIT_OK, EXIT_WRONG_USE

_JOBS = {
    "import": ("raw dataset to manifest.jsonl", "data_prep.import_dataset:import_dataset"),
    "forgeries": ("photographs to forgeries with masks and boxes", "data_prep.forgeries:forgeries"),
    "cam-boxes": ("image labels to boxes by a trained network", "data_prep.cam_boxes:cam_boxes"),
    "boxes": ("masks to coarse boxes, as a person draws them", "data_prep.simulate_boxes:boxes"),
    "import-boxes": ("boxes of an annotation tool", "data_prep.import_boxes:import_boxes"),
    "export-boxes": ("boxes to COCO JSON", "data_prep.export_boxes:export_boxes"),
    "protocol": ("imported datasets to a known protocol", "data_prep.protocol:write_protocol"),
    "check": ("what is wrong with manifests and their files", "data_prep.check:check"),
    "pseudo-masks": ("boxes to pseudo-masks by a teacher", "data_prep.pseudo_masks:pseudo_masks"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one job and return its exit status, as `boxpromptiml` does."""
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return EXIT_OK if words else EXIT_WRONG_USE
    if words[0] == "--version":
        sys.stdout.write(f"boxpromptiml {__version__}\n")
        return EXIT_OK
    job, rest = words[0], words[1:]
    if job not in _JOBS:
        sys.stderr.write(f"data_prep: no job {job!r}\n\n{_usage()}")
        return EXIT_WRONG_USE
    return run(lambda: call(_JOBS[job][1], rest, f"python -m data_prep {job}"))


def _usage() -> str:
    lines = "\n".join(f"  {job:<14} {text}" for job, (text, _) in _JOBS.items())
    return (
        "usage: python -m data_prep JOB ...\n\n"
        f"Raw data to training-ready manifests.\n\njobs (each has --help):\n{lines}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
