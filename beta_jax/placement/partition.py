"""Group partitions: the ways to cut a cluster into equal groups (Beta, OSDI 2023, Algorithm 2)."""

from __future__ import annotations

from beta_jax.types import Cluster, ParallelConfig

MAX_PIPELINE_STAGES = 8
MAX_OPERATOR_DEGREE = 4

Partition = tuple[ParallelConfig, ...]


def regular_partition(num_devices: int, config: ParallelConfig) -> Partition:
    """As many groups of `config` as fit `num_devices`, then the remaining devices as pipelines.

    The remainder becomes power-of-two groups of configuration (1, 1, s), smallest first.
    """
    count, rest = divmod(num_devices, config.num_devices)
    remainder = [ParallelConfig(1, 1 << bit) for bit in range(rest.bit_length()) if rest >> bit & 1]
    return (config,) * count + tuple(remainder)


def enumerate_partitions(cluster: Cluster) -> list[Partition]:
    """All candidates in the published order: group size ascending, then pipeline stages ascending.

    Group sizes are powers of two; one larger than a node must be a multiple of the node.
    """
    partitions = []
    for exponent in range(cluster.num_devices.bit_length()):
        size = 1 << exponent
        if size > cluster.devices_per_node and size % cluster.devices_per_node:
            continue
        for pp in (1 << e for e in range(exponent + 1)):
            if pp <= MAX_PIPELINE_STAGES and size // pp <= MAX_OPERATOR_DEGREE:
                partitions.append(
                    regular_partition(cluster.num_devices, ParallelConfig(size // pp, pp))
                )
    return partitions
