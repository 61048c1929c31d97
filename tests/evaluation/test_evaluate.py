import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, roc_auc_score

from boxpromptiml.cli import call, main
from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.evaluate import EvaluateSettings, evaluate_predictions
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, safe_name, write_manifest
from boxpromptiml.metrics.bootstrap import mean_interval
from boxpromptiml.metrics.results import Evaluation, read_evaluation
from boxpromptiml.records import Sample

TARGET = "boxpromptiml.evaluation.evaluate:evaluate"
NAMES = [
    "pixel_f1", "iou", "auc", "precision", "recall", "best_f1", "false_alarm_pixels",
    "false_alarm_images", "image_auc", "image_f1", "image_accuracy",
]  # fmt: skip


class Data:
    """Images 0 to 5 manipulated, of two datasets and kinds; 6 to 9 authentic; 10 of train."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(0)
        self.root, self.maps, self.truths, self.scores = root, {}, {}, {}
        self.samples = []
        for number in range(11):
            name, size = f"made/{number}", (20 + number, 31)
            truth = np.zeros(size, bool)
            if number < 6:
                truth[2 : 3 + 2 * number, 3:17] = True
            noise = rng.integers(0, 200, size)
            self.maps[name] = np.clip(noise + 90 * truth, 0, 255).astype(np.uint8)
            self.truths[name], self.scores[name] = truth, round(float(rng.random()), 6)
            manipulated = number < 6
            if manipulated:
                mask = truth.astype(np.uint8) * 255
                images.write_png(root / f"data/masks/{number}.png", mask)
            self.samples.append(
                Sample(
                    id=name, dataset="ab"[number % 2], split="train" if number == 10 else "test",
                    group=f"g{number // 2}", image=f"im/{number}.jpg", size=size,
                    label=int(manipulated), boxes=None,
                    kind=("splice", "removal", None)[number % 3] if manipulated else None,
                    mask=f"masks/{number}.png" if manipulated else None,
                )
            )  # fmt: skip
        self.write()

    def write(self, **changes: Any) -> Self:
        write_manifest(self.root / "m.jsonl", Header(image_root="data"), self.samples)
        for name, levels in self.maps.items():
            if name != "made/10":
                images.write_png(self.root / "out/prob" / f"{name}.png", levels)
        rows = [{"id": n, "name": n, "image_score": s} for n, s in self.scores.items()][:10]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.root / "out/predictions.jsonl").write_text(text)
        return self

    def evaluate(self, preset: Any = "default", **settings: Any) -> Evaluation:
        chosen = EvaluateSettings(preset=preset, **({"resamples": 200} | settings))
        return evaluate_predictions(self.root / "out", [self.root / "m.jsonl"], chosen)

    def call(self, *words: str) -> int:
        place = ["--predictions", str(self.root / "out"), "--manifest", str(self.root / "m.jsonl")]
        out = ["--out", str(self.root / "eval"), "--resamples", "50"]
        return call(TARGET, [*place, *out, *words], "boxpromptiml evaluate")

    def flat(self, numbers: Iterable[int]) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        names = [f"made/{number}" for number in numbers]
        return [(self.truths[n].ravel(), self.maps[n].ravel() / 255) for n in names]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def value(evaluation: Evaluation, name: str) -> float:
    return evaluation.metrics["scores"][name]["value"]


def test_default_scores_are_those_of_scikit_learn(data: Data) -> None:
    found = data.evaluate(threshold=0.6)
    scores = found.metrics["scores"]
    assert list(scores) == NAMES
    pairs = data.flat(range(6))
    assert value(found, "pixel_f1") == pytest.approx(
        np.mean([f1_score(y, p > 0.6) for y, p in pairs])
    )
    assert value(found, "iou") == pytest.approx(
        np.mean([jaccard_score(y, p > 0.6) for y, p in pairs])
    )
    assert value(found, "auc") == pytest.approx(np.mean([roc_auc_score(y, p) for y, p in pairs]))
    clean = data.flat(range(6, 10))
    assert value(found, "false_alarm_pixels") == pytest.approx(
        np.mean([np.mean(p > 0.6) for _, p in clean])
    )
    y = np.arange(10) < 6
    s = np.array([data.scores[f"made/{number}"] for number in range(10)])
    assert value(found, "false_alarm_images") == np.mean(s[6:] > 0.6)
    assert value(found, "image_auc") == pytest.approx(roc_auc_score(y, s))
    assert value(found, "image_f1") == pytest.approx(f1_score(y, s > 0.6))
    assert value(found, "image_accuracy") == accuracy_score(y, s > 0.6)
    assert found.metrics["image_score"] == "predictions"
    assert found.metrics["images"] == {"manipulated": 6, "authentic": 4, "unknown": 0}
    assert [scores[name]["count"] for name in NAMES] == [6] * 6 + [4] * 2 + [10] * 3


def test_best_f1_is_at_one_threshold_for_all_images(data: Data) -> None:
    found = data.evaluate()
    by_threshold = [
        np.mean([f1_score(y, p > level / 255) for y, p in data.flat(range(6))])
        for level in range(0, 255, 5)
    ]
    curve = np.array(found.metrics["curves"]["f1"])
    np.testing.assert_allclose(curve[:255:5, 1], by_threshold, atol=1e-6)
    best = found.metrics["scores"]["best_f1"]
    assert best["value"] == pytest.approx(curve[:, 1].max(), abs=1e-6)
    assert best["best_f1_threshold"] == curve[curve[:, 1].argmax(), 0]
    assert best["low"] <= best["value"] <= best["high"]


def test_intervals_can_be_had_again_from_the_rows(data: Data) -> None:
    found = data.evaluate(seed=3)
    rows = found.rows
    again = mean_interval([r.f1 for r in rows], [r.group for r in rows], 200, seed=3)
    assert tuple(found.metrics["scores"]["pixel_f1"].values()) == again
    assert data.evaluate(seed=3) == found or repr(data.evaluate(seed=3)) == repr(found)
    assert found.metrics["bootstrap"] == {
        "resamples": 200,
        "seed": 3,
        "level": 0.95,
        "unit": "group",
    }


def test_groups(data: Data) -> None:
    found = data.evaluate().metrics["groups"]
    assert {name: scores["count"] for name, scores in found["dataset"].items()} == {"a": 5, "b": 5}
    kinds = {name: scores["count"] for name, scores in found["kind"].items()}
    assert kinds == {"splice": 2, "removal": 2, "unknown": 2, "authentic": 4}
    assert "false_alarm_pixels" in found["kind"]["authentic"]
    assert "pixel_f1" not in found["kind"]["authentic"]
    assert list(found["region_size"]) == ["1% to 5%", "5% to 15%", "15% and more"]
    f1s = [f1_score(y, p > 0.5) for y, p in data.flat([0, 3])]
    assert found["kind"]["splice"]["pixel_f1"]["value"] == pytest.approx(np.mean(f1s))
    assert found["dataset"]["a"]["image_auc"]["count"] == 5


def test_curves_are_short_and_end_where_they_must(data: Data) -> None:
    curves = data.evaluate().metrics["curves"]
    assert all(2 <= len(points) <= 256 for points in curves.values())
    assert (curves["roc"][0], curves["roc"][-1]) == ([1, 1], [0, 0])
    pairs = data.flat(range(6))
    rates = [[np.mean(p[~y] > 0.6), np.mean(p[y] > 0.6)] for y, p in pairs]
    assert min(np.abs(np.array(curves["roc"]) - np.mean(rates, axis=0)).max(axis=1)) < 1e-9
    recall, precision = np.array(curves["precision_recall"]).T
    assert (np.diff(recall) <= 0).all()
    assert precision[-1] > precision[0]


def test_rows(data: Data) -> None:
    row = data.evaluate().rows[2]
    assert (row.id, row.dataset, row.kind, row.group, row.label) == ("made/2", "a", "", "g1", 1)
    assert (row.height, row.width, row.name) == (22, 31, "made/2")
    assert row.region == data.truths["made/2"].mean()
    assert (row.region_size, row.image_score) == ("5% to 15%", data.scores["made/2"])
    assert row.flagged == np.mean(data.maps["made/2"] > 127)


def test_every_line_has_an_image_score_or_none_has(data: Data) -> None:
    table = data.root / "out/predictions.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    del rows[3]["image_score"]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"1 of 10 lines .* no image_score, for example 'made/3'"):
        data.evaluate()
    rows = [{"id": row["id"], "name": row["name"]} for row in rows]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = data.evaluate()
    assert found.metrics["image_score"] == "maximum"
    assert [row.image_score for row in found.rows] == [
        data.maps[f"made/{number}"].max() / 255 for number in range(10)
    ]


def test_presets_differ_where_they_must(data: Data) -> None:
    default, benco = data.evaluate(), data.evaluate("benco-resize", size=(16, 16))
    assert default.metrics["scores"]["pixel_f1"]["count"] == 6
    assert benco.metrics["scores"]["pixel_f1"]["count"] == 10
    assert benco.rows[7].f1 == benco.rows[7].auc == 0
    assert benco.metrics["size"] == (16, 16)
    lab = data.evaluate("lab-minmax")
    assert lab.metrics["scores"]["false_alarm_pixels"]["value"] > value(
        default, "false_alarm_pixels"
    )
    assert (lab.metrics["scores"]["auc"]["count"], lab.metrics["scores"]["iou"]["count"]) == (6, 10)
    trufor = data.evaluate("trufor-permuted")
    assert trufor.metrics["scores"]["best_f1"]["best_f1_threshold"] is None
    mvss = data.evaluate("mvss")
    assert (mvss.metrics["image_score"], default.metrics["image_score"]) == (
        "maximum",
        "predictions",
    )
    assert value(mvss, "image_auc") != value(default, "image_auc")


def test_mvss_joins_both_f1(data: Data) -> None:
    for number in range(6, 9):  # three quiet ones, so that both rates are above 0
        data.maps[f"made/{number}"] //= 3
    found = data.write().evaluate("mvss")
    sensitivity = np.mean([row.image_score > 0.5 for row in found.rows[:6]])
    specificity = np.mean([row.image_score <= 0.5 for row in found.rows[6:]])
    assert sensitivity == 1
    assert specificity == 0.75
    f1, image_f1 = value(found, "pixel_f1"), 2 * 0.75 / 1.75
    assert value(found, "image_f1") == pytest.approx(image_f1)
    assert value(found, "combined_f1") == pytest.approx(2 * f1 * image_f1 / (f1 + image_f1))


def test_benco_takes_maps_of_the_network_too(data: Data) -> None:
    small = np.zeros((16, 16), np.uint8)
    small[:8] = 255
    images.write_png(data.root / "out/prob/made/1.png", small)
    found = data.evaluate("benco-resize", size=(16, 16))
    assert found.rows[1].flagged == 0.5
    with pytest.raises(UserError, match=r"made/1.png: is 16 x 16, the manifest says 31 x 21"):
        data.evaluate()
    with pytest.raises(UserError, match=r"made/1.png: is 16 x 16"):
        data.evaluate("benco-resize", size=(16, 17))


def test_unknown_labels_are_those_of_the_masks(data: Data) -> None:
    labelled = data.evaluate()
    data.samples[0] = replace(data.samples[0], label=None)
    empty = np.zeros(data.samples[6].size, np.uint8)
    images.write_png(data.root / "data/masks/6.png", empty)
    data.samples[6] = replace(data.samples[6], label=None, mask="masks/6.png")
    found = data.write().evaluate()
    assert found.metrics["images"] == {"manipulated": 6, "authentic": 4, "unknown": 0}
    assert found.metrics["scores"] == labelled.metrics["scores"]
    assert (found.rows[0].label, found.rows[6].label) == (1, 0)
    data.samples[0] = replace(data.samples[0], mask=None)
    with pytest.raises(UserError, match=r"1 images .* for example 'made/0'"):
        data.write().evaluate()


def test_kinds_of_reserved_names_stay_apart(data: Data) -> None:
    data.samples[0] = replace(data.samples[0], kind="authentic")
    data.samples[1] = replace(data.samples[1], kind="unknown")
    kinds = data.write().evaluate().metrics["groups"]["kind"]
    assert {name: scores["count"] for name, scores in kinds.items()} == {
        "authentic (kind)": 1, "unknown (kind)": 1, "unknown": 2, "splice": 1, "removal": 1,
        "authentic": 4,
    }  # fmt: skip


def test_an_image_score_of_exactly_the_threshold_is_no_alarm(data: Data) -> None:
    data.scores = dict.fromkeys(data.scores, 0.25)
    found = data.write().evaluate(threshold=0.25)
    assert value(found, "false_alarm_images") == value(found, "image_f1") == 0
    assert (value(found, "image_accuracy"), value(found, "image_auc")) == (0.4, 0.5)


def test_one_class_has_no_image_scores(data: Data) -> None:
    data.samples = data.samples[:6]
    for number in range(6, 11):
        del data.maps[f"made/{number}"], data.scores[f"made/{number}"]
        (data.root / f"out/prob/made/{number}.png").unlink(missing_ok=True)
    found = data.write().evaluate()
    for name in ("image_auc", "image_f1", "image_accuracy", "false_alarm_images"):
        assert found.metrics["scores"][name]["value"] is None


def test_masks_of_0_and_1_are_not_taken_for_probabilities(data: Data) -> None:
    for levels in data.maps.values():
        levels[:] = levels > 127
    with pytest.raises(UserError, match="save masks as 0 and 255"):
        data.write().evaluate()
    data.maps["made/3"][0, 0] = 2  # faint, but a map
    assert value(data.write().evaluate(), "pixel_f1") == 0


def test_maps_of_few_levels_are_said(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    data.evaluate()
    assert "warning" not in capsys.readouterr().err
    for levels in data.maps.values():
        levels[:] = levels // 60  # a map that lives below 4/255
    data.write().evaluate()
    said = "warning: 10 of 10 maps use at most 16 levels, such as"
    assert said in " ".join(capsys.readouterr().err.split())
    for levels in data.maps.values():
        levels[:] = np.where(levels > 1, 255, 0)  # masks have two, and mean them
    data.write().evaluate()
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".jpg.png", ".jpg.npz", ".npy", ".tif"])
def test_maps_of_other_programs_in_nested_folders_score_alike(data: Data, ending: str) -> None:
    expected = data.evaluate(threshold=0.6).metrics["scores"]
    shutil.rmtree(data.root / "out")
    for number in range(10):
        path = data.root / "out" / "theirs" / "im" / f"{number}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        prob = (data.maps[f"made/{number}"] / 255).astype(np.float32)
        if ending == ".npy":
            np.save(path, prob)
        elif ending == ".jpg.npz":
            np.savez_compressed(path, map=prob, conf=prob[::2], score=0.5)
        else:
            deep = np.round(prob * 65535).astype(np.uint16)
            Image.fromarray(deep if ending == ".jpg.png" else prob).save(path)
    found = data.evaluate(threshold=0.6).metrics["scores"]
    for name in ("pixel_f1", "iou", "auc", "precision", "recall", "false_alarm_pixels"):
        assert found[name]["value"] == pytest.approx(expected[name]["value"], abs=1e-6), name


def test_the_command_writes_both_files_and_prints_a_table(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.call() == 0
    out = capsys.readouterr().out
    found = read_evaluation(data.root / "eval")
    assert len(found.rows) == 10
    assert f"{value(found, 'pixel_f1'):.3f} [" in out
    assert "dataset a " in out
    assert "region size 5% to 15%" in out
    assert data.call("--preset", "benco-resize", "--size=[16, 16]") == 0
    assert read_evaluation(data.root / "eval").metrics["size"] == [16, 16]


def test_nothing_is_written_when_anything_is_wrong(data: Data) -> None:
    (data.root / "out/prob/made/4.png").unlink()
    with pytest.raises(UserError, match="have no file: made/4"):
        data.call()
    assert not (data.root / "eval").exists()


def test_all_splits(data: Data) -> None:
    with pytest.raises(UserError, match="1 images have no prediction: made/10"):
        data.evaluate(split=None)
    with pytest.raises(UserError, match=r'no row of .* has "split": "val"'):
        data.evaluate(split="val")


def test_ids_in_two_manifests(data: Data) -> None:
    paths = [data.root / "m.jsonl", data.root / "m.jsonl"]
    with pytest.raises(UserError, match="11 ids are in more than one manifest"):
        evaluate_predictions(data.root / "out", paths, EvaluateSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "threshold must be in"),
        ({"threshold": float("nan")}, "threshold must be in"),
        ({"preset": "benco"}, "no preset 'benco'; there are default, lab"),
        ({"preset": "benco-resize"}, "only there"),
        ({"size": (5, 5)}, "only there"),
        ({"preset": "benco-resize", "size": (0, 5)}, "size must be from 1 to 4096"),
        ({"resamples": 0}, "resamples must be"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateSettings(**settings)


def test_memory_does_not_grow_with_the_pixels_of_the_set(data: Data) -> None:
    """Only scores are kept: 30 images of 1 megapixel leave less than one of them."""
    import tracemalloc

    rng = np.random.default_rng(0)
    data.samples, data.maps, data.scores = [], {}, {}
    for path in (data.root / "out/prob/made").glob("*.png"):
        path.unlink()
    levels = images.encode_png(rng.integers(0, 4, (1000, 1000), dtype=np.uint8) * 60)
    for number in range(30):
        name = f"made/{number}"
        data.samples.append(Sample(name, "a", "test", name, f"{number}.jpg", (1000, 1000), 0, None))
        data.scores[name] = 0.5
        (data.root / "out/prob" / f"{safe_name(name)}.png").write_bytes(levels)
    write_manifest(data.root / "m.jsonl", Header(), data.samples)
    rows = [{"id": n, "name": n} for n in data.scores]
    (data.root / "out/predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    tracemalloc.start()
    found = data.evaluate(resamples=10)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.rows) == 30
    assert kept < 1e6
    assert peak < 16e6


def test_a_mistake_is_one_line(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--predictions={data.root}/out", f"--manifest={data.root}/none", "--out=x"]
    assert main(["evaluate", *words]) == 1
    assert "none: cannot read the manifest" in capsys.readouterr().err


def test_the_command_takes_all_splits(data: Data) -> None:
    with pytest.raises(UserError, match="made/10"):
        data.call("--split=null")
