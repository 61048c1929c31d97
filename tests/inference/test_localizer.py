from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.inference import localizer as module
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.maps import Answer
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.inputs import FloatArray, NetworkInput
from boxpromptiml.records import ImageArray

SPEC = ModelSpec(StudentConfig("mobilenetv3_small_050"), NetworkInput("native", (64, 64)), 0.5)


def brightness(image: FloatArray) -> Answer:
    """A network whose logit is the brightness of its own pixel."""
    logits = image.mean(1, keepdims=True)
    return Answer(logits, logits.max((1, 2, 3)))


def grey(size: tuple[int, int], level: int) -> ImageArray:
    return np.full((*size, 3), level, np.uint8)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.lists(sizes, max_size=12), st.integers(1, 5), st.booleans())
def test_a_stream_gives_every_image_what_it_gets_alone(
    shapes: list[tuple[int, int]], batch_size: int, tile: bool
) -> None:
    localizer = Localizer(brightness, SPEC)
    images = [grey(shape, 20 * number) for number, shape in enumerate(shapes)]
    found = list(localizer.localize_each(enumerate(images), batch_size, tile))
    assert [number for number, _, _ in found] == list(range(len(images)))
    for number, image, (prob, score) in found:
        assert image is images[number]
        (alone,) = localizer.localize([image], tile)
        np.testing.assert_allclose(prob, alone.prob, atol=1e-6)
        assert score == pytest.approx(alone.score)


@pytest.mark.parametrize(("limit", "ahead"), [(10**9, 3), (50, 2), (1, 1)])
def test_no_more_than_a_batch_is_decoded_ahead(
    monkeypatch: pytest.MonkeyPatch, limit: int, ahead: int
) -> None:
    monkeypatch.setattr(module, "_MAX_BATCH_PIXELS", limit)
    decoded, most, used = 0, 0, 0

    def images() -> Iterator[tuple[int, ImageArray]]:
        nonlocal decoded, most
        for number in range(10):
            decoded += 1
            most = max(most, decoded - used)
            yield number, grey((5, 5), number)

    for _ in Localizer(brightness, SPEC).localize_each(images(), batch_size=3):
        used += 1
    assert (used, most) == (10, ahead)
