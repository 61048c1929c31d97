"""Maps in evaluation."""

from pathlib import Path

import pytest
import torch

from boxpromptiml.tasks.numeric import DivergedError
from tests.helpers.training import make_data, make_task, make_trainer


def test_a_map_does_not_depend_on_its_neighbours(data_root: Path) -> None:
    data = make_data(data_root, eval_batch_size=6)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    batch["extent"] = [(64, 96)] * 3 + [(50, 80)] * 3
    task = make_task().eval()
    with torch.inference_mode():
        maps = task.predict_step(batch, 0)
        alone = task.network(batch["image"][4:5, :, :50, :80]).logits
    assert [tuple(p.shape) for p in maps["prob"]] == [(64, 96)] * 6
    resized = torch.nn.functional.interpolate(alone, size=(64, 96), mode="bilinear")
    torch.testing.assert_close(maps["prob"][4], resized.sigmoid()[0, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_a_map_that_is_not_finite_is_named(data_root: Path, tmp_path: Path, verb: str) -> None:
    task = make_task()
    task.on_train_end()  # else the weights are refused as untrained
    with torch.no_grad():
        next(task.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"map of image .* is not finite"):
        getattr(make_trainer(tmp_path), verb)(task, make_data(data_root))
