"""Checkpoints say what they were trained on."""

from dataclasses import replace

from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.export import export
from boxpromptiml.manifests.manifest import write_manifest
from boxpromptiml.tasks.callbacks import LocalCheckpointIO
from tests.helpers.data import make_manifest
from tests.tasks.test_distill import checkpoints, make_data, make_task, make_trainer


def _manifest(root, name, seed, **changes):
    made = make_manifest(root / name, "train", 4, 1, seed)
    rows = (replace(row, dataset=name, **changes) for row in made.samples)
    return write_manifest(made.path, made.header, rows).path


def _fit(root, run, manifests, **settings):
    data = make_data(root)
    data.paths["train"] = manifests
    trainer = make_trainer(run, checkpoints(run), plugins=LocalCheckpointIO(), **settings)
    ckpt_path = str(run / "last.ckpt") if (run / "last.ckpt").exists() else None
    trainer.fit(make_task(), data, ckpt_path=ckpt_path)
    return load_localizer(run / "last.ckpt")[1].trained_on


def test_the_card_names_the_data_sets_of_what_was_kept_and_export_passes_them_on(
    data_root, tmp_path
):
    zebra, ant = (_manifest(tmp_path, name, 11 + n) for n, name in enumerate(("zebra", "ant")))
    unlabelled = _manifest(tmp_path, "left out", 13, label=None)
    manifests = [zebra, ant, unlabelled]
    assert _fit(data_root, tmp_path, manifests, max_epochs=1) == ("ant", "zebra")
    export(tmp_path / "last.ckpt", tmp_path / "student.safetensors")
    assert load_localizer(tmp_path / "student.safetensors")[1].trained_on == ("ant", "zebra")
    bee = _manifest(tmp_path, "bee", 15)
    assert _fit(data_root, tmp_path, [bee], max_epochs=2) == ("ant", "bee", "zebra")
