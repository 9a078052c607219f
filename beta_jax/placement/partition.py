"""Group partitions: the ways to cut a cluster into equal groups (Beta, OSDI 2023, Algorithm 2)."""

from __future__ import annotations

import itertools

from beta_jax.types import Cluster, ParallelConfig, Pool

MAX_PIPELINE_STAGES = 8
MAX_OPERATOR_DEGREE = 4

Partition = tuple[ParallelConfig, ...]


def regular_partition(num_devices: int, config: ParallelConfig) -> Partition:
    """As many groups of `config` as fit `num_devices`, then the remaining devices as pipelines.

    The remainder becomes power-of-two groups of configuration (1, 1, s), smallest first.
    """
    count, rest = divmod(num_devices, config.num_devices)
    sizes = (1 << bit for bit in range(rest.bit_length()) if rest >> bit & 1)
    return (config,) * count + tuple(ParallelConfig(1, size, config.pool) for size in sizes)


def enumerate_partitions(cluster: Cluster) -> list[Partition]:
    """All candidates in the published order: group size ascending, then pipeline stages ascending.

    Group sizes are powers of two; one larger than a node must be a multiple of the node. Of several
    pools every combination, the last pool fastest, and then those that use one pool alone.
    """
    of_pools = [_partitions(pool, index) for index, pool in enumerate(cluster.pools)]
    of_pools = [partitions for partitions in of_pools if partitions]
    if len(of_pools) == 1:
        return of_pools[0]
    together = (sum(parts, ()) for parts in itertools.product(*of_pools))
    return [*together, *itertools.chain.from_iterable(of_pools)]


def _partitions(pool: Pool, index: int) -> list[Partition]:
    partitions = []
    for exponent in range(pool.num_devices.bit_length()):
        size = 1 << exponent
        if size > pool.devices_per_node and size % pool.devices_per_node:
            continue
        for pp in (1 << e for e in range(exponent + 1)):
            if pp <= MAX_PIPELINE_STAGES and size // pp <= MAX_OPERATOR_DEGREE:
                config = ParallelConfig(size // pp, pp, index)
                partitions.append(regular_partition(pool.num_devices, config))
    return partitions
