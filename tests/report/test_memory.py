"""The pictures of a memory show the cells that its prototypes answer to."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.manifests.manifest import Header, Manifest, read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source, stored_image
from boxpromptiml.models.inputs import whole_image
from boxpromptiml.models.student import Student
from boxpromptiml.records import Sample
from boxpromptiml.report.build import build_report
from boxpromptiml.report.gallery import GalleryImage
from boxpromptiml.report.memory import _without_padding, look_into_memory
from boxpromptiml.report.page import render
from boxpromptiml.report.run import ScoredRun
from tests.helpers.models import save_student
from tests.helpers.report_pages import Page, decoded, entry, make_run, report


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    """A run of two manipulated images, whose checkpoint is a student with 8 prototypes."""
    run = make_run(tmp_path_factory.mktemp("memory") / "run", [0.9, 0.1])
    save_student(run.checkpoint)
    return run


@pytest.fixture(scope="module")
def manifest(scored: ScoredRun) -> Manifest:
    return read_manifest(scored.run.manifests("test")[0])


ENTRIES: list[GalleryImage] = [entry("set/a"), entry("set/b")]


def test_prototypes_are_those_of_the_network(scored: ScoredRun, manifest: Manifest) -> None:
    memory = look_into_memory(scored.checkpoint, ENTRIES, [manifest])
    assert memory is not None
    network, spec = load_localizer(scored.checkpoint)
    assert isinstance(network, Student)
    assert network.fusion.memory is not None
    weights = []
    for sample in manifest.samples:
        fed = torch.from_numpy(whole_image(stored_image(Source(manifest, sample)), spec.input))
        with torch.inference_mode():
            fused = network.attend(fed[None])[1]
            fused = _without_padding(fused, fed.shape[1:], network.backbone.strides[0])
            weights.append(network.fusion.memory.weights(fused.features)[0].mean(dim=(1, 2)))
    mean = torch.stack(weights).mean(dim=0)
    assert memory.count == len(memory.prototypes) == 8
    assert [one.number - 1 for one in memory.prototypes] == mean.argsort(descending=True).tolist()
    for one in memory.prototypes:
        assert one.fraction == pytest.approx(float(mean[one.number - 1]), rel=1e-5)
        assert decoded(one.patches.uri).size == (2 * 48, 48)
    assert sum(one.fraction for one in memory.prototypes) == pytest.approx(1, rel=1e-5)


def test_what_the_network_pads_is_left_out(scored: ScoredRun) -> None:
    network, _ = load_localizer(scored.checkpoint)
    assert isinstance(network, Student)
    cell, stride = network.backbone.strides[0], max(network.backbone.strides)
    height, width = stride + 1, 2 * stride + cell + 1
    with torch.inference_mode():
        fused = network.attend(torch.zeros(1, 3, height, width))[1]
    cut = _without_padding(fused, (height, width), cell)
    assert cut.base.shape[2:] == (-(-height // cell), -(-width // cell))
    assert fused.base.shape[2:] == (2 * stride // cell, 3 * stride // cell)


def test_attention_of_each_image_is_drawn(scored: ScoredRun, manifest: Manifest) -> None:
    memory = look_into_memory(scored.checkpoint, ENTRIES, [manifest])
    assert memory is not None
    assert [image.id for image in memory.images] == ["set/a", "set/b"]
    names = [panel.caption.split(",")[0] for panel in memory.images[0].panels]
    assert names == ["Image", "A_base", "A_mem", "A_final"]
    page = Page(render(report(memory=memory)))
    assert "Memory" in page.texts("h2")
    assert "set/a" in page.texts("h4")
    numbers = [str(one.number) for one in memory.prototypes]
    assert [text for text in page.texts("th") if text in numbers] == numbers


def test_a_turned_photograph_is_shown_upright(
    scored: ScoredRun, manifest: Manifest, tmp_path: Path
) -> None:
    (sample,) = [one for one in manifest.samples if one.id == "set/a"]
    with Image.open(manifest.image_path(sample)) as stored:
        cut = stored.crop((0, 0, stored.width, stored.height // 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    cut.save(tmp_path / "a.png", exif=exif)
    turned = Sample("set/a", "set", "test", "g", "a.png", (cut.height, cut.width), 0, ())
    other = write_manifest(tmp_path / "m.jsonl", Header(), [turned])
    memory = look_into_memory(scored.checkpoint, ENTRIES[:1], [other])
    assert memory is not None
    for panel in memory.images[0].panels:
        assert decoded(panel.uri).size == (panel.width, panel.height)
        assert panel.height / panel.width == pytest.approx(cut.width / cut.height, rel=0.02)


def test_without_a_memory_or_images_there_is_no_section(
    scored: ScoredRun, manifest: Manifest, tmp_path: Path
) -> None:
    assert look_into_memory(scored.checkpoint, [entry("set/lost")], [manifest]) is None
    assert look_into_memory(scored.checkpoint, [], [manifest]) is None
    assert look_into_memory(tmp_path / "none.ckpt", ENTRIES, [manifest]) is None
    assert "Memory" not in Page(render(report())).texts("h2")


def test_the_report_of_a_run_shows_it(scored: ScoredRun) -> None:
    first, again = (render(build_report([scored], None)) for _ in range(2))
    assert "Memory" in Page(first).texts("h2")
    assert first == again
