"""Divide images of several datasets into the splits of a protocol, without leaks."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.manifests.splits import take_by_group
from boxpromptiml.records import Sample
from data_prep.protocols.published import Portion


class Part(NamedTuple):
    """The images of one dataset in one split, in the order of the dataset's manifest.

    Attributes:
        portion: What the protocol prescribes.
        samples: The samples, with `split` set.
        left_out: Images that are also in an evaluation split and must not be in this one.
        chosen: How the images were chosen, as text.
    """

    portion: Portion
    samples: list[Sample]
    left_out: list[RejectedInput]
    chosen: str


def divide(
    portions: Sequence[Portion],
    datasets: Mapping[str, Sequence[Sample]],
    seed: int,
    val_fraction: float = 0.0,
) -> list[Part]:
    """Divide datasets into the portions of a protocol; missing datasets are skipped.

    No group and no file (by its hash) is in two splits, also across datasets: what is in a test set
    is left out of validation and training, what is in validation is left out of training.

    Args:
        portions: Of the portions of one dataset, each but the last takes its number of forgeries,
            in whole groups, and the last takes the rest.
        datasets: Images by name of the dataset.
        seed: Seed of the draw of groups, where no list is published.
        val_fraction: Fraction of every training set to use for validation, for datasets for which
            the protocol itself has no validation images.

    Returns:
        The parts, those of training first, then validation and test; each lists what it left out.
    """
    of_dataset: defaultdict[str, list[Portion]] = defaultdict(list)
    for portion in portions:
        if portion.dataset in datasets:
            of_dataset[portion.dataset].append(portion)
    parts = [
        part
        for dataset, its_portions in of_dataset.items()
        for part in _parts(its_portions, datasets[dataset], seed)
    ]
    test, val, train = (
        [part for part in parts if part.portion.split == split]
        for split in ("test", "val", "train")
    )
    val, train = _without(val, test), _without(train, test)
    validated = {part.portion.dataset for part in val}
    for number, part in enumerate(train):
        if val_fraction and part.portion.dataset not in validated:
            kept, taken = _hold_out(part, val_fraction, seed)
            train[number] = kept
            val.append(taken)
    return [*_without(train, val), *val, *test]


def _parts(portions: Sequence[Portion], samples: Sequence[Sample], seed: int) -> Iterator[Part]:
    rest = [sample for sample in samples if sample.label == 1]
    authentic = [sample for sample in samples if sample.label == 0]
    chosen = ""
    for portion in portions:
        if portion.groups:
            taken = [sample for sample in rest if sample.group in portion.groups]
            rest = [sample for sample in rest if sample.group not in portion.groups]
            chosen = f"by the published list {portion.listed_in}"
        elif portion is not portions[-1]:
            taken, rest = take_by_group(rest, portion.manipulated or 0, seed)
            chosen = f"ours, because no list is published: whole groups, drawn with seed {seed}"
        else:
            taken = rest
            others = f", but for {portions[0].split}: that is {chosen}" if chosen else ""
            chosen = f"all that was imported{others}"
        used = {sample.id for sample in taken}
        used |= {sample.id for sample in authentic if portion.authentic != 0}
        kept = [replace(sample, split=portion.split) for sample in samples if sample.id in used]
        yield Part(portion, kept, [], chosen)


def _hold_out(part: Part, val_fraction: float, seed: int) -> tuple[Part, Part]:
    """Split a training set: one without some groups, and these groups for validation."""
    count = round(val_fraction * len(part.samples))
    taken, kept = take_by_group(part.samples, count, seed)
    chosen = (
        f"ours, because the protocol has no validation: {val_fraction:g} of training, "
        f"{count} images, whole groups, drawn with seed {seed}"
    )
    val = Part(
        Portion(part.portion.dataset, "val", None, None),
        [replace(sample, split="val") for sample in taken],
        [],
        chosen,
    )
    return part._replace(samples=kept, chosen=f"{part.chosen}, but for val: that is {chosen}"), val


def _without(parts: Iterable[Part], evaluation: Iterable[Part]) -> list[Part]:
    """The parts without images of the evaluation and their siblings."""
    by_key: dict[str, Sample] = {}
    for part in evaluation:
        for sample in part.samples:
            by_key.setdefault(f"group {sample.group}", sample)
            if sample.image_sha256:
                by_key[f"file {sample.image_sha256}"] = sample
    return [_left_out(part, by_key) for part in parts]


def _left_out(part: Part, by_key: Mapping[str, Sample]) -> Part:
    kept: list[Sample] = []
    left_out = list(part.left_out)
    for sample in part.samples:
        same_file = by_key.get(f"file {sample.image_sha256}")
        other = same_file or by_key.get(f"group {sample.group}")
        if other is None:
            kept.append(sample)
            continue
        is_what = "is the same file as" if same_file else f"is of group {sample.group}, as is"
        message = f"{is_what} {other.id}, which is in {other.split}"
        left_out.append(RejectedInput(sample.image, f"in_{other.split}", message))
    return part._replace(samples=kept, left_out=left_out)
