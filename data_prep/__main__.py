"""`python -m data_prep JOB`: raw data to training-ready manifests."""

import sys

# `-m` puts the working directory first, where an untrusted numpy.py may lie beside the data. It is
# dropped before anything is imported from it, unless our own packages lie there.
_is_first = __name__ == "__main__" and not sys.flags.safe_path
if _is_first and sys.path[0] != __file__.rpartition("/data_prep/")[0]:
    del sys.path[0]

from collections.abc import Sequence  # noqa: E402

from boxpromptiml.cli import call, dispatch  # noqa: E402

_JOBS = {
    "import": ("a raw dataset to manifest.jsonl", "data_prep.import_dataset:import_dataset"),
    "forgeries": ("photographs to forgeries with masks and boxes", "data_prep.forgeries:forgeries"),
    "cam-boxes": ("boxes where a network sees manipulations", "data_prep.cam_boxes:cam_boxes"),
    "boxes": ("masks to boxes as a person would draw them", "data_prep.simulate_boxes:boxes"),
    "import-boxes": ("boxes from an annotation tool", "data_prep.import_boxes:import_boxes"),
    "export-boxes": (
        "boxes or masks for an annotation tool",
        "data_prep.export_boxes:export_boxes",
    ),
    "protocol": ("manifests of an evaluation protocol", "data_prep.protocol:write_protocol"),
    "check": ("check manifests and their files", "data_prep.check:check"),
    "wandb-artifact": (
        "a manifest and its pseudo-masks on Weights & Biases",
        "data_prep.wandb_artifact:wandb_artifact",
    ),
    "pseudo-masks": ("boxes to pseudo-masks by a teacher", "data_prep.pseudo_masks:pseudo_masks"),
}


def main(args: Sequence[str] | None = None, program: str = "python -m data_prep") -> int:
    """Run one job and return its exit status, as `boxpromptiml` does.

    Args:
        args: Command line without the program's name; the process's own by default.
        program: Its name, for messages; `boxpromptiml data` is the same program.
    """
    lines = "\n".join(f"  {job:<14} {text}" for job, (text, _) in _JOBS.items())
    usage = (
        f"usage: {program} JOB ...\n\n"
        f"Raw data to training-ready manifests.\n\njobs (each has --help):\n{lines}\n"
    )
    return dispatch(program, _JOBS, usage, lambda words: _start(words, program), args)


def _start(words: list[str], program: str) -> int:
    job, *rest = words
    return call(_JOBS[job][1], rest, f"{program} {job}")


if __name__ == "__main__":
    sys.exit(main())
