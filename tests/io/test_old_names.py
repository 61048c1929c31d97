"""Configurations and command lines of older versions are read, and said once."""

import logging
from collections.abc import Iterator

import pytest

from boxpromptiml.io import old_names
from boxpromptiml.io.old_names import renamed, renamed_words


@pytest.fixture(autouse=True)
def _nothing_was_said() -> Iterator[None]:
    old_names._say.cache_clear()
    yield
    old_names._say.cache_clear()


def test_keys_and_classes_at_any_depth(caplog: pytest.LogCaptureFixture) -> None:
    old = {
        "trainer": {
            "callbacks": [{"class_path": "boxpromptiml.reporting.predictions.PredictionWriter"}]
        },
        "data": {"train_share": 0.5, "input": {"fit": "native"}, "segmenter": {"min_share": 0.1}},
        "arms": {"a": {"settings": {"data.train_share": 1, "data.input.fit": "resize"}}},
    }
    expected = {
        "trainer": {
            "callbacks": [{"class_path": "boxpromptiml.tasks.prediction_writer.PredictionWriter"}]
        },
        "data": {
            "train_fraction": 0.5,
            "input": {"mode": "native"},
            "segmenter": {"min_fraction": 0.1},
        },
        "variants": {"a": {"settings": {"data.train_fraction": 1, "data.input.mode": "resize"}}},
    }
    with caplog.at_level(logging.WARNING):
        assert renamed(old) == renamed(old) == expected
    lines = [record.getMessage() for record in caplog.records]
    assert "train_share is an older name; write train_fraction" in lines
    assert len(lines) == len(set(lines)) == 7
    caplog.clear()
    assert renamed(expected) == expected
    assert not caplog.records


def test_a_key_that_is_there_under_both_names_is_left_for_the_parser_to_refuse() -> None:
    both = {"train_share": 0.5, "train_fraction": 0.5}
    assert renamed(both) == both


def test_the_verb_fit_stays() -> None:
    assert renamed({"fit": {"trainer": {"max_epochs": 1}}}) == {
        "fit": {"trainer": {"max_epochs": 1}}
    }
    assert renamed_words(["fit", "--config", "fit"]) == ["fit", "--config", "fit"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--box_share=0.5", "--box_fraction=0.5"),
        ("--val_share", "--val_fraction"),
        ("--mask_share", "--mask_fraction"),
        ("--data.train_share=0.5", "--data.train_fraction=0.5"),
        ("--data.input.fit=native", "--data.input.mode=native"),
        ("--data.segmenter.min_share", "--data.segmenter.min_fraction"),
        (
            "--trainer.callbacks+=boxpromptiml.tasks.wandb_images.WandbImages",
            "--trainer.callbacks+=boxpromptiml.tasks.wandb.WandbImages",
        ),
        ("--out=train_share", "--out=train_share"),
    ],
)
def test_flags(old: str, new: str) -> None:
    assert renamed_words([old]) == [new]


def test_an_option_with_another_name_in_one_command(caplog: pytest.LogCaptureFixture) -> None:
    words = ["--model=a.ckpt", "--out", "b"]
    assert renamed_words(words, "boxpromptiml fit") == words
    new = ["--checkpoint=a.ckpt", "--out", "b"]
    assert renamed_words(words, "boxpromptiml complexity") == new
    assert caplog.messages == ["--model is an older name; write --checkpoint"]
    assert renamed_words(["--manifests", "a"], "python -m data_prep protocol")[0] == "--manifest"
    assert renamed_words(["--photos", "a"], "boxpromptiml data forgeries")[0] == "--images"
