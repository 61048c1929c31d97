"""Protocols on invented samples, and on the public datasets in miniature."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data_prep
from boxpromptiml.data.leaks import refuse_shared_images
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import Sample, Split
from data_prep.__main__ import main
from data_prep.importers.datasets import PUBLIC
from data_prep.protocols.dividing import divide
from data_prep.protocols.published import PROTOCOLS, Portion, ProtocolName
from tests.helpers.data import make_folder, mask_file
from tests.helpers.trees import TREES, coverage, photo


def sample(
    key: str, group: str | None = None, label: int | None = 1, sha256: str | None = None
) -> Sample:
    return Sample(
        id=key,
        dataset=key.partition("/")[0],
        split="train",
        group=group or key,
        image=f"{key}.png",
        size=(8, 8),
        label=label,
        boxes=None if label else (),
        image_sha256=sha256,
    )


def many(dataset: str, manipulated: int, authentic: int = 0) -> list[Sample]:
    labels = [1] * manipulated + [0] * authentic
    return [sample(f"{dataset}/{number}", label=label) for number, label in enumerate(labels)]


def by_name(parts: Iterable[Any]) -> dict[str, Any]:
    names = [f"{part.portion.split}_{part.portion.dataset}" for part in parts]
    assert len(set(names)) == len(names)
    return dict(zip(names, parts, strict=True))


def ids(part: Any) -> set[str]:
    return {sample.id for sample in part.samples}


# What the protocols say


def test_the_numbers_are_those_of_the_datasets() -> None:
    """Shares of a dataset sum to its published number; a dataset that is divided is so once."""
    assert set(get_args(ProtocolName)) == set(PROTOCOLS)
    for protocol in PROTOCOLS.values():
        assert len({(portion.dataset, portion.split) for portion in protocol.portions}) == len(
            protocol.portions
        )
        total: Counter[str] = Counter()
        for portion in protocol.portions:
            assert portion.dataset in PUBLIC
            total[portion.dataset] += portion.manipulated or 0
            assert portion.authentic in (0, PUBLIC[portion.dataset].expected.get("authentic"))
        for dataset, number in total.items():
            assert number == PUBLIC[dataset].expected.get("manipulated", 0)


def test_the_papers_protocol_at_full_size() -> None:
    portions = PROTOCOLS["boxpromptiml"].portions
    sizes = {name: PUBLIC[name].expected for name in {portion.dataset for portion in portions}}
    datasets = {
        name: many(name, size["manipulated"], min(size.get("authentic", 0), 5))
        for name, size in sizes.items()
    }
    parts = by_name(divide(portions, datasets, seed=0))
    assert {name: len(part.samples) for name, part in parts.items()} == {
        "train_casia_v2": 5123,
        "train_columbia": 130,
        "train_coverage": 70,
        "train_nist16": 414,
        "test_casia_v1": 920,
        "test_columbia": 50,
        "test_coverage": 30,
        "test_nist16": 150,
        "test_cocoglide": 512,
        "test_in_the_wild": 201,
        "test_korus": 220,
        "test_imd2020": 2010,
    }
    assert all(sample.label for part in parts.values() for sample in part.samples)
    assert not any(part.left_out for part in parts.values())


def test_cat_nets_validation_is_its_published_one() -> None:
    portion = next(portion for portion in PROTOCOLS["cat-net"].portions if portion.split == "val")
    assert len(portion.groups) == 28
    samples = [sample(f"imd2020/{group}/f", group) for group in sorted(portion.groups)]
    samples += [sample("imd2020/1aa/f", "imd2020/1aa")]
    parts = by_name(
        divide(PROTOCOLS["cat-net"].portions, {"imd2020": samples}, 0, val_fraction=0.5)
    )
    assert {one.group for one in parts["val_imd2020"].samples} == portion.groups
    assert ids(parts["train_imd2020"]) == {"imd2020/1aa/f"}  # and --val_fraction takes nothing more


# Dividing


DIVIDED = (Portion("a", "test", 30), Portion("a", "train", 70), Portion("b", "train", 20, 10))


def test_divided_datasets_keep_every_forgery_and_the_order() -> None:
    datasets = {"a": many("a", 100, 40), "b": many("b", 20, 10)}
    parts = by_name(divide(DIVIDED, datasets, seed=0))
    assert len(parts["test_a"].samples) == 30
    assert ids(parts["test_a"]) | ids(parts["train_a"]) == {f"a/{n}" for n in range(100)}
    assert len(parts["train_a"].samples) == 70
    assert len(parts["train_b"].samples) == 30  # authentic ones too
    for part in parts.values():
        assert {sample.split for sample in part.samples} == {part.portion.split}
        assert part.samples == sorted(part.samples, key=lambda one: int(one.id[2:]))
    assert "ours" in parts["test_a"].chosen
    assert "seed 0" in parts["test_a"].chosen
    assert "but for test" in parts["train_a"].chosen
    assert parts["train_b"].chosen == "all that was imported"


def test_the_seed_decides_and_nothing_else() -> None:
    datasets = {"a": many("a", 100)}
    chosen = [ids(by_name(divide(DIVIDED, datasets, seed))["test_a"]) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    fewer = {"a": datasets["a"][1:][::-1]}  # a rejected image moves at most one other
    assert len(chosen[0] - ids(by_name(divide(DIVIDED, fewer, 0))["test_a"])) <= 1


LISTED = frozenset({"coco/1", "coco/2"})
TANGLED = (
    Portion("a", "test", 5),
    Portion("a", "train", 70),
    Portion("b", "train", 20, 10),
    Portion("c", "val", 3, groups=LISTED, listed_in="x.txt"),
    Portion("c", "train", 20),
)
images_of = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=25)


@settings(max_examples=60)
@given(st.tuples(images_of, images_of, images_of), st.integers(0, 3), st.sampled_from([0.0, 0.4]))
def test_neither_groups_nor_files_straddle_splits(
    drawn: Any, seed: int, val_fraction: float
) -> None:
    """Groups are shared by datasets, files are equal in several; `fit` accepts the outcome."""
    datasets = {
        name: [
            sample(f"{name}/{number}", f"coco/{group}", number % 4 > 0, f"sha{sha256}")
            for number, (group, sha256) in enumerate(images)
        ]
        for name, images in zip("abc", drawn, strict=True)
    }
    nowhere: Any = None  # the manifest is not looked at
    parts = divide(TANGLED, datasets, seed, val_fraction)
    for number, one in enumerate(parts):
        for other in parts[:number]:
            if one.portion.split != other.portion.split:
                assert not {s.group for s in one.samples} & {s.group for s in other.samples}
                hashes = [{s.image_sha256 for s in part.samples} for part in (one, other)]
                assert not hashes[0] & hashes[1]
                sources = [[Source(nowhere, s) for s in part.samples] for part in (one, other)]
                refuse_shared_images(sources[0], {"test": sources[1]})
    written = [s.id for part in parts for s in part.samples]
    listed = [row.path.removesuffix(".png") for part in parts for row in part.left_out]
    everything = [s for samples in datasets.values() for s in samples]
    wanted = [s.id for s in everything if s.label or s.dataset == "b"]  # others are used by none
    assert sorted(written + listed) == sorted(wanted)  # each once: no silent loss


def test_what_a_test_set_has_is_left_out_of_training() -> None:
    portions = (Portion("casia_v2", "train", 3, 3), Portion("casia_v1", "test", 1, 1))
    datasets = {
        "casia_v2": [
            sample("casia_v2/Au_1", label=0, sha256="same"),
            sample("casia_v2/Tp_1", group="coco/7", sha256="x"),
            sample("casia_v2/Tp_2", sha256=None),
        ],
        "casia_v1": [
            sample("casia_v1/Au_1", label=0, sha256="same"),
            sample("casia_v1/Sp_1", group="coco/7", sha256=None),
        ],
    }
    parts = by_name(divide(portions, datasets, 0))
    assert ids(parts["train_casia_v2"]) == {"casia_v2/Tp_2"}
    assert len(parts["test_casia_v1"].samples) == 2
    rows = [row.as_row() for row in parts["train_casia_v2"].left_out]
    assert [row["reason"] for row in rows] == ["in_test", "in_test"]
    assert [row["path"] for row in rows] == ["casia_v2/Au_1.png", "casia_v2/Tp_1.png"]
    assert "same file as casia_v1/Au_1" in rows[0]["message"]
    assert "coco/7" in rows[1]["message"]


def test_validation_is_taken_from_every_training_set_by_group() -> None:
    datasets = {"a": many("a", 100), "b": many("b", 20, 10)}
    datasets["b"] = [replace(s, group=f"b/{number // 3}") for number, s in enumerate(datasets["b"])]
    without = by_name(divide(DIVIDED, datasets, 0))
    parts = by_name(divide(DIVIDED, datasets, 0, val_fraction=0.1))
    assert parts["test_a"] == without["test_a"]
    assert len(parts["val_a"].samples) == 7
    assert len(parts["val_b"].samples) == 3
    assert len({s.group for s in parts["val_b"].samples}) == 1
    for dataset in "ab":
        train, val = parts[f"train_{dataset}"], parts[f"val_{dataset}"]
        assert ids(train) | ids(val) == ids(without[f"train_{dataset}"])
        assert "no validation" in val.chosen


# The job


README = Path(data_prep.__file__).with_name("README.md").read_text()
COMMAND = r"^python -m data_prep (import .*--dataset (?!folder)(\w+) .*)"
COMMANDS = re.findall(COMMAND, README, re.MULTILINE)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every public dataset in miniature, imported by the commands of the README; read-only."""
    root = tmp_path_factory.mktemp("protocol")
    for command, name in COMMANDS:
        TREES[name](root / "raw" / name)
        words = dict(zip(*[iter(command.split()[1:])] * 2, strict=True))
        assert words["--source"].startswith("raw/")
        words |= {"--source": str(root / "raw" / name), "--out": str(root / words["--out"])}
        assert main(["import", *chain.from_iterable(words.items())]) in (0, 3)
    return root / "data"


def test_the_readme_has_a_command_for_every_dataset() -> None:
    assert [name for _, name in COMMANDS] == list(dict.fromkeys(name for _, name in COMMANDS))
    assert {name for _, name in COMMANDS} == set(PUBLIC)


def run(name: str, manifests: Iterable[Path], out: Path, *more: str) -> int:
    words = ["--protocol", name, "--manifest", *map(str, manifests), "--out", str(out)]
    return main(["protocol", *words, *more])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_file_of_a_written_protocol_is_there(
    name: ProtocolName, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(name, [imported], tmp_path / "p" / "q", "--val_fraction", "0.3") == 0
    out, err = capsys.readouterr()
    assert "not in this protocol: autosplice" in err
    assert "missing datasets" not in err
    paths = sorted((tmp_path / "p" / "q").iterdir())
    for path in paths:
        manifest = read_manifest(path)
        assert manifest.samples
        split, _, dataset = path.stem.partition("_")
        notes = manifest.header.notes["protocol"]
        for one in manifest.samples:
            assert manifest.image_path(one).is_file()
            assert one.mask is None or mask_file(manifest, one).is_file()
            assert (one.split, one.dataset) == (split, dataset)
        assert sum(notes["written"].values()) == len(manifest.samples)
        assert notes["notes"] == list(PROTOCOLS[name].notes)
        assert str(path) in out
        source = read_manifest(imported / f"{dataset}.jsonl")
        assert manifest.header.notes["masks"] == source.header.notes["masks"]
        originals = {one.id: replace(one, split=cast(Split, split)) for one in source.samples}
        assert all(originals[one.id] == replace(one, image=originals[one.id].image)
                   for one in manifest.samples)  # fmt: skip
    splits = {path.name.partition("_")[0] for path in paths}
    assert splits == {"train", "val", "test"}


def test_both_numbers_and_missing_datasets_are_said(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifests = [imported / "casia_v2.jsonl", imported / "coverage.jsonl"]
    assert run("boxpromptiml", manifests, tmp_path / "p") == 0
    out, err = capsys.readouterr()
    assert "casia_v1, cocoglide, columbia, imd2020, in_the_wild, korus, nist16" in err
    assert "train_casia_v2.jsonl: 7 manipulated (5123 published), 0 authentic" in out
    assert "data.val: none" in out
    assert "--val_fraction" in out
    notes = read_manifest(tmp_path / "p" / "test_coverage.jsonl").header.notes["protocol"]
    assert notes["published"] == {"manipulated": 30, "authentic": 0}
    assert notes["written"] == {"manipulated": 2, "authentic": 0}
    assert "korus" in notes["missing_datasets"]
    assert "seed 0" in notes["chosen"]
    assert not (tmp_path / "p" / "train_coverage.jsonl").exists()  # nothing was left for it


def test_a_file_of_two_datasets_is_listed_beside_the_training_manifest(
    imported: Path, tmp_path: Path
) -> None:
    tampered = tmp_path / "raw" / "image" / "1t.tif"
    coverage(tmp_path / "raw")
    root = read_manifest(imported / "casia_v2.jsonl")
    tampered.write_bytes(root.image_path(root.samples[-1]).read_bytes())
    out = tmp_path / "coverage.jsonl"
    source = str(tmp_path / "raw")
    main(["import", "--dataset", "coverage", "--source", source, "--out", str(out)])
    assert run("boxpromptiml", [imported / "casia_v2.jsonl", out], tmp_path / "p") == 3
    lines = (tmp_path / "p" / "train_casia_v2.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [root.samples[-1].image]
    assert len(read_manifest(tmp_path / "p" / "train_casia_v2.jsonl").samples) == 6


def test_mistakes_are_one_clear_line(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "x.png")
    again = tmp_path / "again.jsonl"
    again.write_text((imported / "casia_v2.jsonl").read_text())
    other = tmp_path / "folder.jsonl"
    make_folder(tmp_path / "d", 1, 1)
    source = str(tmp_path / "d")
    assert main(["import", "--dataset", "folder", "--source", source, "--out", str(other)]) == 0
    capsys.readouterr()
    two = [imported / "casia_v2.jsonl", again]
    for name, manifests, more, said in (
        ("boxpromptiml", [imported / "korus.jsonl"], (), "casia_v2, columbia, coverage, nist16"),
        ("boxpromptiml", [imported / "coverage.jsonl"], (), "nothing is left to train on"),
        ("benco", two, (), "another manifest of casia_v2"),
        ("benco", [other], (), "none is of a training set"),
        ("benco", [tmp_path / "none.jsonl"], (), "cannot read"),
        ("benco", [imported], ("--val_fraction", "1"), "--val_fraction"),
    ):
        assert run(name, manifests, tmp_path / "p", *more) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        assert said in errors[0]
    assert not (tmp_path / "p").exists()
    assert run("mvss", [imported], tmp_path / "p") == 2


def test_an_earlier_run_is_not_mixed_with_a_new_one(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("benco", [imported], tmp_path / "p", "--val_fraction", "0.3") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()}
    assert run("benco", [imported], tmp_path / "p", "--val_fraction", "0.3") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()} == before
    capsys.readouterr()
    assert run("benco", [imported], tmp_path / "p") == 1
    assert "val_casia_v2.jsonl" in capsys.readouterr().err
    assert run("benco", [tmp_path / "p"], tmp_path / "q") == 1  # what it wrote is no import


def test_imported_manifests_are_not_replaced(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "train_casia_v2.jsonl"
    mine.write_text((imported / "casia_v2.jsonl").read_text())
    before = mine.read_bytes()
    assert run("benco", [mine], tmp_path) == 1
    assert "is there, and not of an earlier run" in capsys.readouterr().err
    assert mine.read_bytes() == before


def test_what_was_made_of_an_import_is_kept(imported: Path, tmp_path: Path) -> None:
    """Boxes and pseudo-masks of the imported manifest stay valid."""
    source = read_manifest(imported / "casia_v2.jsonl")
    samples = [
        replace(one, pseudo_mask=f"{number}.png") for number, one in enumerate(source.samples)
    ]
    header = Header(
        image_root=str((imported / source.header.image_root).resolve()),
        pseudo_root="masks",
        teacher_signature="abc",
        notes=source.header.notes,
    )
    write_manifest(tmp_path / "in" / "m.jsonl", header, samples)
    assert run("benco", [tmp_path / "in"], tmp_path / "p") == 0
    written = read_manifest(tmp_path / "p" / "train_casia_v2.jsonl")
    assert written.header.teacher_signature == "abc"
    path = written.pseudo_mask_path(written.samples[0])
    assert path is not None
    assert path.resolve() == (tmp_path / "in" / "masks" / "0.png").resolve()
