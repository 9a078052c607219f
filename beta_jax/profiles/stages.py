"""From layers to pipeline stages: where a model is cut (Beta, OSDI 2023, section 4.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

Cut = tuple[int, ...]
"""Number of layers of each stage, in order."""


def even_cut(num_layers: int, num_stages: int) -> Cut:
    """Equally many layers to a stage, as hand-written partitions have; the first may have one more.

    Raises ValueError for fewer layers than stages.
    """
    _check(num_layers, num_stages)
    few, more = divmod(num_layers, num_stages)
    return (few + 1,) * more + (few,) * (num_stages - more)


def balanced_cut(layer_latency_s: ArrayLike, num_stages: int) -> Cut:
    """The cut whose longest stage is shortest, by dynamic programming over all cuts.

    layer_latency_s: float64 [layer], in order, >= 0. Raises ValueError for fewer layers than
    stages.
    """
    ends = np.concatenate([[0.0], np.cumsum(np.asarray(layer_latency_s, np.float64))])
    num_layers = len(ends) - 1
    _check(num_layers, num_stages)
    longest = ends.copy()  # of the first layers, up to each one, in the stages so far
    begins = []
    for stage in range(1, num_stages):
        # [begin, end]: the stages so far take the layers up to `begin`, the next one the rest.
        worst = np.maximum(longest[:, None], ends - ends[:, None])
        worst[np.tril_indices(len(ends))] = np.inf
        worst[:stage] = np.inf
        begins.append(worst.argmin(0))
        longest = worst.min(0)
    cuts = [num_layers]
    for begin in reversed(begins):
        cuts.append(int(begin[cuts[-1]]))
    return tuple(np.diff([0, *reversed(cuts)]).tolist())


def _check(num_layers: int, num_stages: int) -> None:
    if not 1 <= num_stages <= num_layers:
        raise ValueError(f"{num_layers} layers cannot be cut into {num_stages} stages")
