"""The store gives back what was put in, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.data.cache import PixelStore

slots = st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(min_size=4, max_size=4))


@given(first=slots, second=slots, others=st.lists(st.binary(min_size=32, max_size=32)))
def test_a_store_finds_what_was_put_in_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[bytes, bytes],
    second: dict[bytes, bytes],
    others: list[bytes],
) -> None:
    store = PixelStore(tmp_path_factory.mktemp("store"), (1, 1))
    for part in (first, second):
        with store.appending():
            store.append(part.items())
    known = first | second
    keys = [*known, b"", *others]
    cached = store.open(np.array(keys, "S32"))
    for position, key in enumerate(keys):
        found = cached.read(position)
        expected = [first.get(key), second.get(key)]
        content = None if found is None else found[0].tobytes() + found[1].tobytes()
        assert content in expected if key in known else content is None
