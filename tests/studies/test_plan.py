"""What a study's file may say, and the trainings that follow."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from boxpromptiml.errors import UserError
from boxpromptiml.studies.plan import plan_trainings, read_study, training_fingerprint

STUDIES = sorted(Path(__file__, "../../../experiments/studies").resolve().glob("*.yaml"))


def write(folder: Path, **changes: object) -> Path:
    plan = {
        "title": "T",
        "config": str(folder / "experiment.yaml"),
        "reference": "a",
        "settings": {"trainer.max_epochs": 1},
        "variants": {
            "a": {"what": "first"},
            "b": {"what": "second", "settings": {"model.lr": 0.1}},
        },
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(plan | changes))
    (folder / "train.jsonl").write_text("data")
    (folder / "experiment.yaml").write_text(f"data: {{train: [{folder}/train.jsonl]}}")
    return path


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_ship_can_be_read(path: Path) -> None:
    plan = read_study(path)
    trainings = plan_trainings(plan, Path("runs/studies") / path.stem, plan.seeds)
    assert len(trainings) == len(plan.variants) * len(plan.seeds)
    assert len({t.folder for t in trainings}) == len(trainings)


def test_a_shared_arm_asks_for_what_the_other_study_trains() -> None:
    """Else the second study would refuse the runs of the first."""
    plans = {path.stem: read_study(path) for path in STUDIES}
    shared = 0
    for plan in plans.values():
        for variant in plan.variants.values():
            if variant.same_as is None:
                continue
            study, name = variant.same_as.split("/")
            other = plans[study]
            ours = (variant.config or plan.config, plan.settings | variant.settings)
            theirs = other.variants[name]
            assert ours == (theirs.config or other.config, other.settings | theirs.settings)
            shared += 1
    assert shared >= 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "c"}, "reference: 'c' is none of"),
        ({"colour": "red"}, "colour"),
        ({"seeds": ["one"]}, "seeds.0"),
        ({"variants": {"a": {"settings": {}}}}, "variants.a.what"),
        ({"variants": {"../a": {"what": "x"}}, "reference": "../a"}, "letters, digits"),
        ({"prepare": ["rm -rf /"]}, "must begin with one of"),
        ({"variants": {"a": {"what": "x", "same_as": "../../etc/x"}}}, "same_as"),
        ({"variants": {}}, "reference"),
        ({"settings": {"model.lr": math.nan}}, "must be finite"),
    ],
)
def test_a_mistake_is_named_with_its_field(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_study(write(tmp_path, **changes))
    assert str(tmp_path / "study.yaml") in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "", "- 1", "\x00", "2020-01-01", "2024-13-45", "a: &a [*a]"]
)
def test_what_is_no_study_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"study\.yaml"):
        read_study(path)


def test_deep_nesting_is_refused_before_it_takes_seconds(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("[" * 90_000)
    with pytest.raises(UserError, match=r"nested more than 50 deep|maximum nesting depth"):
        read_study(tmp_path / "study.yaml")


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="aliases"):
        read_study(tmp_path / "study.yaml")


def test_trainings_go_seed_by_seed_and_arms_override(tmp_path: Path) -> None:
    plan = read_study(write(tmp_path, settings={"model.lr": 0.5, "data.x": [1]}))
    trainings = plan_trainings(plan, tmp_path / "out", [3, 4])
    assert [(t.variant, t.seed) for t in trainings] == [("a", 3), ("b", 3), ("a", 4), ("b", 4)]
    words = trainings[1].words
    assert "--model.lr=0.1" in words
    assert "--data.x=[1]" in words
    assert f"--trainer.default_root_dir={tmp_path}/out/b/seed_3" in words
    assert "--data.seed=3" in words
    assert "--seed_everything=3" in words


def test_the_fingerprint_follows_settings_experiment_and_data_but_not_the_folder(
    tmp_path: Path,
) -> None:
    plan = read_study(write(tmp_path))
    first = [training_fingerprint(t) for t in plan_trainings(plan, tmp_path / "x", [0, 1])]
    assert len(set(first)) == 4
    assert first == [training_fingerprint(t) for t in plan_trainings(plan, tmp_path / "y", [0, 1])]
    (tmp_path / "train.jsonl").write_text("other data")
    again = [training_fingerprint(t) for t in plan_trainings(plan, tmp_path / "x", [0, 1])]
    assert not set(first) & set(again)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"train\.jsonl does not exist"):
        training_fingerprint(plan_trainings(plan, tmp_path, [0])[0])


@pytest.mark.parametrize(
    "text",
    ["[" * 3000, "a: 2024-13-45", "a: &x [*x]", "a: &x {b: *x}", "\x00", "a: 1\na: [", "? {}\n: 1"],
    ids=["deep", "no date", "circle", "circle of keys", "nul", "open", "odd key"],
)
def test_a_study_that_yaml_stumbles_over_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=r"s\.yaml"):
        read_study(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"trust": "evil"}}, "'trust' is not a setting of an experiment"),
        ({"settings": {"trainer.max_epochs": 1, "config": "x.yaml"}}, "'config' is not a setting"),
        ({"settings": {"model --trust": 1}}, "is not a setting"),
        ({"settings": {"ckpt_path": "x.ckpt"}}, "'ckpt_path' is not a setting"),
        (
            {"variants": {"a": {"what": "x", "settings": {"trust": ["evil"]}}}},
            "variants.a.settings: 'trust'",
        ),
        ({"config": "/elsewhere/x.yaml"}, "outside the study's"),
        ({"settings": {"model": "/elsewhere/x.yaml"}}, "outside the study's"),
        ({"variants": {"a": {"what": "a", "config": "/elsewhere/x"}}}, "outside the study's"),
        ({"prepare": ["data_prep wandb-artifact --name a"]}, "uses other machines"),
        ({"prepare": ["boxpromptiml data wandb-artifact"]}, "uses other machines"),
        ({"prepare": ["data_prep check --engine ray --address=a:1"]}, "uses other machines"),
        ({"prepare": ["data_prep check --allow-remote true"]}, "uses other machines"),
        ({"prepare": ["data_prep check --config study.yaml"]}, "hides its options"),
        ({"prepare": ["boxpromptiml localize --config=study.yaml"]}, "hides its options"),
        ({"prepare": ["boxpromptiml fit --trust=evil"]}, "must not name code to trust"),
        ({"prepare": ["boxpromptiml fit --trust evil"]}, "must not name code to trust"),
        ({"prepare": ["boxpromptiml study --file x --trust a"]}, "must not name code to trust"),
        ({"prepare": ["boxpromptiml fit --config /elsewhere/x.yaml"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --config=/elsewhere/x"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit -c /elsewhere/x"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --data=/elsewhere/x.yaml"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit -c/elsewhere/x"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit -c=/elsewhere/x"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --config=/else=where/x"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --config /else=where/x"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --data=/elsewhere/x.YML"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --data=/etc/passwd"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml fit --model /etc/passwd"]}, "outside the study's"),
        ({"prepare": ["boxpromptiml -q study --file study.yaml"]}, "makes no data"),
        ({"variants": {"a" * 101: {"what": "x"}}, "reference": "a" * 101}, "at most 100 letters"),
        ({"prepare": ["data_prep 'boxes"]}, "No closing quotation"),
        ({"prepare": [""]}, "is not a command line"),
        ({"prepare": ["data_prep_evil boxes"]}, "must begin with one of"),
    ],
)
def test_a_study_reaches_no_further_than_trainings(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read_study(write(tmp_path, **changes))


@pytest.mark.parametrize("seeds", [[], [-1], [2**32], [1, 1]])
def test_seeds_are_one_or_more_none_twice_and_in_range(tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(UserError, match="seeds: one or more"):
        plan_trainings(read_study(write(tmp_path)), tmp_path, seeds)


@pytest.mark.parametrize("manifests", [5, [5], None, {"a": 1}, "none.jsonl"])
def test_manifests_that_are_no_list_of_files_are_one_line(
    tmp_path: Path, manifests: object
) -> None:
    plan = read_study(write(tmp_path, settings={"data.train": manifests}))
    with pytest.raises(UserError, match=r"data\.train"):
        training_fingerprint(plan_trainings(plan, tmp_path, [0])[0])


def test_a_name_that_no_file_can_have_is_refused_on_reading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no name or path may hold NUL"):
        read_study(write(tmp_path, settings={"data.train": ["a\0"]}))


def test_configurations_beside_the_study_or_in_the_working_directory_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [
        f"boxpromptiml fit --config {tmp_path}/x.yaml",
        "boxpromptiml fit --config experiments/image_label.yaml --seed_everything=1",
    ]
    assert read_study(write(tmp_path, prepare=commands)).prepare == commands
    monkeypatch.chdir(tmp_path)  # the packaged one
    assert read_study(write(tmp_path, prepare=commands, config="native")).prepare == commands
    (tmp_path / "link.yaml").symlink_to("/elsewhere/x.yaml")
    outside = write(tmp_path, prepare=[f"boxpromptiml fit --config {tmp_path}/link.yaml"])
    with pytest.raises(UserError, match="outside the study's"):
        read_study(outside)
    assert read_study(outside, trusted=True).prepare


@pytest.mark.parametrize("suffix", ["jsonl", "ckpt", "txt"])
def test_options_of_data_may_name_any_file_and_groups_of_options_none_outside(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study").mkdir()
    file = tmp_path / f"elsewhere/x.{suffix}"
    file.touch()
    for option in ("--data.train", "--ckpt_path", "--model.init_from"):
        commands = [f"boxpromptiml fit {option}={file}", f"boxpromptiml fit {option} {file}"]
        assert read_study(write(tmp_path / "study", prepare=commands)).prepare == commands
    for group in ("--data", "--model.student"):
        for command in (f"boxpromptiml fit {group}={file}", f"boxpromptiml fit {group} {file}"):
            with pytest.raises(UserError, match="outside the study's"):
                read_study(write(tmp_path / "study", prepare=[command]))
