"""Workloads made: a total rate shared out, synthetic traffic, streams merged or joined into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import floats, require_numbers, require_whole, whole_numbers
from beta_jax.types import ONE_WORK, TICKS_PER_SECOND, Model, Workload
from beta_jax.workloads.processes import PROCESSES, MakeProcess, Process
from beta_jax.workloads.requests import WorkloadError
from beta_jax.workloads.sampling import sample_arrivals

MOST_MODELS = 2**24
"""That a rate is split over."""
TINY = 2.0**-54
"""In place of a random number of 0, at which work would be 0."""


def split_rate(
    total_rate_rps: float,
    num_models: int,
    how: str | Sequence[float] | NDArray[np.float64] = "uniform",
) -> NDArray[np.float64]:
    """Share a total rate out over models: float64 requests/s [model] (Beta, OSDI 2023, section 6).

    how: `uniform`; `power_law`, proportional to (i + 1)**-0.5; `triangle_decay`, proportional to
    1, then twice 1/2, then four times 1/4, ...; or one share per model, >= 0, which are normalised.
    Raises ValueError for a rate or a share that is negative or not finite, no models, an unknown
    name, and shares that are too few, too many or all 0.
    """
    require_numbers(total_rate_rps=total_rate_rps)
    require_whole("num_models", num_models, 1, MOST_MODELS)
    if not 0 <= total_rate_rps < np.inf:
        raise ValueError(f"total rate must be >= 0 requests/s and finite, got {total_rate_rps}")
    rank = np.arange(1, num_models + 1, dtype=np.float64)
    if not isinstance(how, str):
        shares = floats("shares", how)
        valid = shares.shape == (num_models,) and np.isfinite(shares).all()
        if not (valid and (shares >= 0).all() and shares.any()):
            raise ValueError(f"{num_models} shares >= 0, not all 0, are needed, got {how}")
    elif how == "uniform":
        shares = np.ones(num_models)
    elif how == "power_law":
        # Python's power: NumPy's is not equal to the last bit on every processor, see below.
        shares = np.array([i**-0.5 for i in rank.tolist()])
    elif how == "triangle_decay":
        shares = 0.5 ** np.floor(np.log2(rank))
    else:
        raise ValueError(f"rate split must be uniform, power_law or triangle_decay, got {how!r}")
    # Summed left to right (unlike `sum`, from Python 3.12 on) and divided in this order, the rates
    # equal the published ones to the last bit.
    return total_rate_rps / np.cumsum(shares)[-1] * shares


class WorkDistribution(Protocol):
    """How work varies: by the inverse of its distribution function, see `scipy.stats`."""

    def ppf(self, share: NDArray[np.float64], /) -> NDArray[np.float64]: ...


def merge(
    streams: Sequence[NDArray[np.float64]], works: Sequence[NDArray[np.float64]] | None = None
) -> Workload:
    """Merge arrival times in seconds, one array per model, into one workload.

    Of equal arrivals the model with the lower index comes first, and each model keeps its order.
    works: of the requests of each stream, if they have their own; see `Workload.from_seconds`.
    """
    streams = [floats("streams", stream) for stream in streams]
    if any(stream.ndim != 1 for stream in streams):
        raise ValueError("streams must be vectors of arrival times, one for each model")
    arrival_s = np.concatenate([np.empty(0), *streams])
    model = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
    order = np.argsort(arrival_s, kind="stable")
    work = None if works is None else np.concatenate([np.empty(0), *works])[order]
    return Workload.from_seconds(arrival_s[order], model[order], work)


def synthesize(
    models: Sequence[Model],
    *,
    duration_s: float,
    process: str | MakeProcess = "gamma",
    seed: int = 0,
    rng: str = "jax",
    start_s: float = 0.0,
    work: WorkDistribution | None = None,
) -> Workload:
    """Sample traffic in `[start_s, start_s + duration_s)` at the rate and CV of every model.

    process: `gamma`, `pareto`, `mmpp`, `poisson` or `deterministic` (the latter two do not look at
    the CV), or what makes a process of a rate and a CV, see `workloads.processes`. rng: see
    `sample_arrivals`; `legacy` with seed 0 is the traffic of the published results.

    work: what each request takes of every stage is drawn from it, as a share of what the profile
    says, such as `scipy.stats.expon()`: a mean of 1 keeps the load. None: all take the same.
    Raises ValueError for a model without a rate, for whatever the process does not allow, and for
    work that is not > 0.
    """
    return synthesize_many(
        models,
        seeds=[seed],
        duration_s=duration_s,
        process=process,
        rng=rng,
        start_s=start_s,
        work=work,
    )[0]


def synthesize_many(
    models: Sequence[Model],
    *,
    seeds: Sequence[int],
    duration_s: float,
    process: str | MakeProcess = "gamma",
    rng: str = "jax",
    start_s: float = 0.0,
    work: WorkDistribution | None = None,
) -> list[Workload]:
    """One independent workload per seed, as `synthesize` makes them, sampled all at once.

    Legacy seeds should be at least `len(models)` apart: model 1 of seed 0 is model 0 of seed 1.
    Raises what `synthesize` does.
    """
    require_numbers(start_s=start_s)
    numbers = whole_numbers("seeds", seeds, np.int64)
    if numbers.ndim != 1:
        raise ValueError(f"seeds must be a list of whole numbers, got {seeds!r}")
    streams = sample_arrivals(
        [_process_of(model, process) for model in models] * len(seeds),
        duration_s=duration_s,
        start_s=start_s,
        seed=np.repeat(numbers, len(models)),
        streams=np.tile(np.arange(len(models)), len(seeds)),
        rng=rng,
    )
    count, found = len(models), []
    for i, seed in enumerate(seeds):
        own = streams[i * count : (i + 1) * count]
        found.append(merge(own, None if work is None else _draw_works(work, own, seed)))
    return found


def _draw_works(
    work: WorkDistribution, streams: Sequence[NDArray[np.float64]], seed: int
) -> list[NDArray[np.float64]]:
    """Of every request of every stream, independent of its arrival, and of other streams."""
    draws = (
        np.random.Generator(np.random.Philox(key=[int(seed), number])).random(len(stream))
        for number, stream in enumerate(streams)
    )
    return [np.asarray(work.ppf(np.maximum(own, TINY)), np.float64) for own in draws]


def _process_of(model: Model, process: str | MakeProcess) -> Process:
    if isinstance(process, str):
        if process not in PROCESSES:
            raise ValueError(f"process must be one of {', '.join(PROCESSES)}, got {process!r}")
        process = PROCESSES[process]
    if not callable(process):
        raise ValueError(f"process must be a name, or make a process of a rate, got {process!r}")
    try:
        return process(model.rate_rps, model.cv)
    except ValueError as error:
        raise ValueError(f"model {model.name}: {error}") from None


def join(workloads: Sequence[Workload], gap_s: float) -> Workload:
    """The workloads one after the other, `gap_s` between the last arrival of one and the next.

    With a gap that outlasts every queue, serving them joined is serving each of them alone, except
    that the order in which groups fell idle still breaks ties of dispatch.
    Raises WorkloadError for no workloads and for a gap that is not positive.
    """
    if not workloads:
        raise WorkloadError("there are no workloads to join")
    if not gap_s > 0:
        raise WorkloadError(f"the gap must be > 0 seconds, got {gap_s}")
    gap = round(gap_s * TICKS_PER_SECOND)
    shifted, start = [], 0
    for workload in workloads:
        shifted.append(_from(workload, start))
        start = int(shifted[-1].arrival[-1]) + gap if len(workload) else start
    return _together(shifted)


def remix(workloads: Sequence[Workload], num_models: int) -> list[Workload]:
    """As many workloads as are given, in each of which every model's requests are from another one.

    Workload i takes model m's from workload (i + m) modulo their number: each stream of requests
    comes once, beside others than it came with. All begin at 0.
    """
    own = [_from(workload, 0) for workload in workloads]
    source = np.add.outer(np.arange(len(own)), np.arange(num_models)) % max(len(own), 1)
    return [
        _together([w.of_models(np.flatnonzero(row == k)) for k, w in enumerate(own)])
        for row in source
    ]


def _from(workload: Workload, start: int) -> Workload:
    """The same requests, the first one at tick `start`."""
    arrival = workload.arrival - workload.arrival[:1] + start
    return dataclasses.replace(workload, arrival=arrival)


def _together(workloads: Sequence[Workload]) -> Workload:
    """The requests of all workloads; of equal arrivals those of the earlier workload come first."""
    arrival = np.concatenate([workload.arrival for workload in workloads])
    model = np.concatenate([workload.model for workload in workloads])
    order = np.argsort(arrival, kind="stable")
    works = [workload.work for workload in workloads]
    if all(work is None for work in works):
        return Workload(arrival[order], model[order])
    ones = (np.full(len(workload), ONE_WORK, np.int32) for workload in workloads)
    filled = [one if work is None else work for work, one in zip(works, ones, strict=True)]
    return Workload(arrival[order], model[order], np.concatenate(filled)[order])
