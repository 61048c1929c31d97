"""Every image once, in an order that depends on seed and epoch alone."""

from typing import Any, cast

from boxpromptiml.data.dataset import Key
from boxpromptiml.data.samplers import EpochSampler, ShardSampler


def test_samplers_share_out_without_loss() -> None:
    dataset = cast(Any, list(range(7)))
    shards = [list(ShardSampler(dataset, rank, 3)) for rank in range(3)]
    assert sorted(index for shard in shards for index in shard) == dataset
    assert [len(ShardSampler(dataset, rank, 3)) for rank in range(3)] == [3, 2, 2]
    samplers = [EpochSampler(dataset, 5, rank, 2) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(3)
    keys = [list(sampler) for sampler in samplers]
    assert len(keys[0]) == len(keys[1]) == 4
    assert {key.position for part in keys for key in part} == set(dataset)
    assert all(isinstance(key, Key) and key.epoch == 3 for part in keys for key in part)
