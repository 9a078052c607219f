"""Greedy replica placement on one long workload, simulating only what an addition changes.

Groups that share no model, directly or through other groups, do not affect each other, under rules
that have `Trait.LOCAL`. So a new replica changes what happens to the requests of the models that
its group is connected with, and to no others: of 48 models with a device or two each, to a few in a
hundred.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.codec import Codec
from beta_jax.search.instances import memory_table, weight_table
from beta_jax.search.result import Result, published_score
from beta_jax.simulator.engine import (
    SINGLE_GROUPS,
    Block,
    BlockShape,
    Counts,
    Kernel,
    Lane,
    num_hosts_padded,
    pack_block,
    padded_size,
    require_room,
    simulate_block,
)
from beta_jax.traits import Trait

Array = NDArray[np.int64]
RELIES_ON = Trait.LOCAL | Trait.AT_ARRIVAL
MOST = 0.9
"""With more of the requests than this it is quicker to simulate all: there is nothing to copy."""
REQUEST_BUCKET = (2**16, 4)
"""Smallest size and factor of padding: a large factor, as every size is a program to compile."""


def fill_incrementally(lane: Lane, num_requests: int) -> Result:
    """Fill the lane's groups as `fill_greedily` does, with the models that they may host.

    num_requests: what the score is a share of.
    """
    problem, num_groups = lane.problem, len(lane.configs)
    shape, block, configs = pack_block(Kernel.SINGLE, [lane])
    assert isinstance(block, Block)  # as the kernel is the one of a single lane
    weight = weight_table(problem, configs)
    allowed = np.isin(np.arange(len(weight)), lane.may_host[0] if num_groups else ())
    requests = np.bincount(block.model[: block.num_requests], minlength=len(weight) + 1)[:-1]
    good, latency = np.zeros((2, len(weight)), np.int64)
    # In canonical order, [group, model] and [group].
    hosted = np.zeros((num_groups, len(weight)), np.bool_)
    config = np.array([configs.index(own) for own in lane.configs], np.int32)
    left = memory_table(problem, lane.configs)
    dispatched = np.zeros(num_groups, np.int64)

    while (fits := allowed & ~hosted & (left[:, None] >= weight[:, config].T)).any():
        load = np.where(fits.any(1), dispatched, np.iinfo(np.int64).max)
        group = int(load.argmin())
        model = int(np.where(fits[group], requests - good, -1).argmax())
        hosted[group, model] = True
        left[group] -= weight[model, config[group]]
        order = sorted(range(num_groups), key=lambda g: np.flatnonzero(hosted[g]).tolist())
        hosted, config = hosted[order], config[order]
        left, dispatched = left[order], dispatched[order]

        part, models = _connected(hosted, order.index(group))
        some = models if requests[models].sum() < MOST * len(lane.workload) else None
        counts = _simulate(shape, block, hosted[part], config[part], some)
        dispatched[part] = counts.dispatched[: len(part), 0]
        good[models] = counts.good[:-1, 0][models]
        latency[models] = counts.latency[:-1, 0][models]

    placement = Codec(configs, len(weight), num_groups).decode(hosted, config)
    score = published_score(int(good.sum()), int(latency.sum()), num_requests, placement)
    attainment = int(good.sum()) / max(num_requests, 1)
    return Result(placement, score, placement.num_replicas + 1, attainment=attainment)


def _connected(hosted: NDArray[np.bool_], group: int) -> tuple[Array, NDArray[np.bool_]]:
    """Which groups share models with one, directly or not, ascending; and the models on them."""
    models = hosted[group]
    while True:
        part = (hosted & models).any(1)
        wider = hosted[part].any(0)
        if (wider == models).all():
            return np.flatnonzero(part), models
        models = wider


def _simulate(
    shape: BlockShape,
    block: Block,
    hosted: NDArray[np.bool_],
    config: NDArray[np.int32],
    models: NDArray[np.bool_] | None,
) -> Counts:
    """Counts of some groups, under the requests of some models only unless that is None."""
    if models is not None:
        block = _only(block, models)
    groups = padded_size(len(hosted), *SINGLE_GROUPS)
    hosted_padded = np.zeros((*block.hosted.shape[:1], groups, 1), np.bool_)
    hosted_padded[:-1, : len(hosted), 0] = hosted.T
    config_padded = np.zeros((groups, 1), np.int32)
    config_padded[: len(config), 0] = config
    changed: dict[str, Any] = {"hosted": hosted_padded, "config": config_padded}
    num_hosts = num_hosts_padded(int(hosted.sum(0).max()), groups)
    counts, _ = simulate_block(shape._replace(num_hosts=num_hosts), block._replace(**changed))
    require_room(shape, counts)
    return jax.device_get(counts)


def _only(block: Block, models: NDArray[np.bool_]) -> Block:
    """The block with the requests of these models."""
    kept = np.flatnonzero(np.append(models, False).take(block.model[: block.num_requests]))
    padded = min(padded_size(len(kept), *REQUEST_BUCKET), len(block.arrival))
    changed: dict[str, Any] = {
        "arrival": np.zeros(padded, np.int64),
        "model": np.zeros(padded, np.int32),
        "work": None if block.work is None else np.zeros(padded, np.int32),
        "num_requests": np.int32(len(kept)),
        "count_to": np.int32(len(kept)),
    }
    for name in ("arrival", "model", "work"):
        if changed[name] is not None:  # clipping is faster than to check what can not be wrong
            getattr(block, name).take(kept, out=changed[name][: len(kept)], mode="clip")
    return block._replace(**changed)
