"""Traffic to plan for: any number of independent workloads, at any rate, from what is known of it.

A log is one sample of its traffic. Others are drawn from it by a block bootstrap (Kuensch, "The
jackknife and the bootstrap for general stationary observations", Annals of Statistics, 1989): whole
blocks of time, of all models together, drawn with replacement and put end to end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import require_numbers, require_whole, set_numbers
from beta_jax.traces.replay import Traffic as Fits
from beta_jax.types import TICKS_PER_SECOND, Model, Workload
from beta_jax.workloads.processes import MakeProcess
from beta_jax.workloads.synthesis import synthesize_many

BLOCK_S = 60.0
SHORTEST_BLOCK_S = 1e-3
MOST_REQUESTS = 2**28
"""In a workload drawn from a log."""


class TrafficSource(Protocol):
    """Where workloads come from."""

    @property
    def block_s(self) -> float:
        """Stretches of traffic of this length are taken to be independent."""

    @property
    def duration_s(self) -> float:
        """Seconds of each workload."""

    def sample(
        self, models: Sequence[Model], seeds: Sequence[int], *, rate: float = 1.0, cv: float = 1.0
    ) -> list[Workload]:
        """A workload per seed, equal for equal seeds, with all rates and CVs times a factor.

        Raises ValueError for a CV that the source cannot change.
        """


@dataclasses.dataclass(frozen=True)
class Generated:
    """Synthetic traffic at the rates and CVs of the models; process: see `synthesize`."""

    duration_s: float = 600.0
    process: str | MakeProcess = "gamma"
    block_s: float = BLOCK_S

    def sample(
        self, models: Sequence[Model], seeds: Sequence[int], *, rate: float = 1.0, cv: float = 1.0
    ) -> list[Workload]:
        require_numbers(rate=rate, cv=cv)
        scaled = [dataclasses.replace(m, rate_rps=m.rate_rps * rate, cv=m.cv * cv) for m in models]
        return synthesize_many(
            scaled, seeds=seeds, duration_s=self.duration_s, process=self.process
        )


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Traffic of the processes that were fitted to a trace, see `traces.fit_traffic`."""

    fits: Fits
    block_s: float = BLOCK_S

    @property
    def duration_s(self) -> float:
        return self.fits.rate_rps.shape[1] * self.fits.window_s

    def sample(
        self, models: Sequence[Model], seeds: Sequence[int], *, rate: float = 1.0, cv: float = 1.0
    ) -> list[Workload]:
        scaled = self.fits.scaled(rate=rate, cv=cv)
        return [scaled.sample(seed=seed) for seed in seeds]


@dataclasses.dataclass(frozen=True)
class Log:
    """Traffic like that of a log, which a workload holds: as many whole blocks as there are in it.

    A rate below 1 keeps each request with that probability, the more the higher the rate is; one
    above 1 adds independent bootstrap copies, the last of them thinned. Raises ValueError for an
    empty log, and for one of less than two blocks.
    """

    workload: Workload
    block_s: float = BLOCK_S

    def __post_init__(self) -> None:
        if not len(self.workload):
            raise ValueError("the log is empty: there is no request to plan for")
        set_numbers(self, "block_s")
        if not SHORTEST_BLOCK_S <= self.block_s < math.inf:
            raise ValueError(
                f"block_s must be >= {SHORTEST_BLOCK_S:g} seconds and finite, got {self.block_s:g}"
            )
        if self._num_blocks < 2:
            span_s = float(np.ptp(self.workload.arrival)) / TICKS_PER_SECOND
            raise ValueError(
                f"a log of {span_s:g} s has less than two blocks of {self.block_s:g} s to draw "
                "from: set block_s, several times as long as a burst"
            )

    @property
    def _block(self) -> int:
        return round(self.block_s * TICKS_PER_SECOND)

    @property
    def _num_blocks(self) -> int:
        """The last one may lack what the log does not reach by a hundredth."""
        return int((int(np.ptp(self.workload.arrival)) + self._block // 100) // self._block)

    @property
    def duration_s(self) -> float:
        return self._num_blocks * self.block_s

    def sample(
        self, models: Sequence[Model], seeds: Sequence[int], *, rate: float = 1.0, cv: float = 1.0
    ) -> list[Workload]:
        require_numbers(rate=rate, cv=cv)
        rate = float(rate)
        if not 0 <= rate * len(self.workload) <= MOST_REQUESTS:
            raise ValueError(
                f"a rate of {rate:.3g} times that of the log is not from 0 to "
                f"{MOST_REQUESTS / len(self.workload):.3g}, {MOST_REQUESTS} requests"
            )
        if cv != 1:
            raise ValueError("a log has no CV to scale: plan for processes fitted to it")
        for seed in seeds:
            require_whole("seed", seed)
        return [self._draw(seed, rate) for seed in seeds]

    def _draw(self, seed: int, rate: float) -> Workload:
        time = self.workload.arrival - self.workload.arrival[0]
        bounds = np.searchsorted(time, np.arange(self._num_blocks + 1) * self._block)
        pieces, places = [], []
        for copy in range(math.ceil(rate)):
            rng = np.random.default_rng([seed, copy])
            blocks = rng.integers(self._num_blocks, size=self._num_blocks)
            length = bounds[blocks + 1] - bounds[blocks]
            place = np.repeat(np.arange(self._num_blocks), length)
            before = np.cumsum(length) - length
            own = np.arange(len(place)) + (bounds[blocks] - before)[place]
            if rate - copy < 1:
                # Every request has its number, so that a higher rate keeps all a lower one does.
                kept = rng.random(len(own)) < rate - copy
                place, own = place[kept], own[kept]
            pieces.append(own)
            places.append((place - blocks[place]) * self._block)
        chosen = np.concatenate([np.zeros(0, np.int64), *pieces])
        arrival = time[chosen] + np.concatenate([np.zeros(0, np.int64), *places])
        order = np.argsort(arrival, kind="stable")
        return _take(self.workload, chosen[order], arrival[order])


def _take(workload: Workload, chosen: NDArray[np.int64], arrival: NDArray[np.int64]) -> Workload:
    """Some requests, at other times."""
    work = None if workload.work is None else workload.work[chosen]
    return Workload(arrival, workload.model[chosen], work)
