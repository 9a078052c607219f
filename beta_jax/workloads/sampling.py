"""Sampling many independent streams of arrivals at once.

A stream is the sequence of arrival times of one model. Its random numbers come in blocks of `BLOCK`
from a counter-based generator: block b of stream i of seed s is keyed by `fold_in(fold_in(key(s),
i), b)`. So a stream depends on its own seed, index, process, start and duration, and on nothing
that is sampled beside it; and because all blocks of all streams and seeds go through one program of
a fixed shape, nothing is compiled twice. Sampling always runs on the CPU where JAX offers one: a
seed means the same workload whatever accelerator simulates it.
"""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.checks import floats, require_numbers
from beta_jax.types import MOST_SECONDS
from beta_jax.workloads.processes import (
    Deterministic,
    Floats,
    Gamma,
    Poisson,
    Process,
    RenewalProcess,
    UniformMMPP,
    require,
)

BLOCK = 256
"""Draws per key; even, because a change of state of `UniformMMPP` takes two of them."""
CHUNK = 128
"""Blocks per call of the compiled program: one call takes 2 ms, several run in parallel."""
STATE_BLOCKS = 2**31
"""First block of the draws that decide the states of a `UniformMMPP`, far behind those of gaps."""
MOST_ARRIVALS = 2**28
"""Of a stream, about: two gigabytes of times."""
ACCEPTANCE = 0.95
"""Lowest acceptance rate of the gamma sampler, over all shapes."""


def sample_arrivals(
    processes: Sequence[Process],
    *,
    duration_s: float,
    start_s: float | Sequence[float] | Floats = 0.0,
    seed: int | Sequence[int] | NDArray[np.integer[Any]] = 0,
    rng: str = "jax",
    streams: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
) -> list[Floats]:
    """Sample the arrivals of every process in `[start_s, start_s + duration_s)`.

    Returns one sorted float64 array of seconds per process. `streams` (default 0, 1, 2, ...) are
    the indices that the processes have as random streams; `streams`, `seed` and `start_s` may each
    be one value or one per process, so that many replications are one call.

    rng: "jax" as the module says; "legacy" as in the published artifact: process i draws from
    `numpy.random.RandomState(seed + i)`, and gaps are summed one by one onto the start. (So the
    legacy streams of seed 1 are those of seed 0, shifted by one. NumPy's global state is not used.)

    Raises ValueError for a bad duration, start, seed, stream or rng, and for processes that
    "legacy" does not define: those other than gamma, poisson and deterministic.
    """
    require_numbers(duration_s=duration_s)
    duration_s = float(duration_s)
    require(
        0 <= duration_s < MOST_SECONDS,
        f"duration must be >= 0 seconds and < {MOST_SECONDS:.3g}, got {duration_s}",
    )
    require(
        isinstance(rng, str) and rng in ("jax", "legacy"),
        f"rng must be 'jax' or 'legacy', got {rng!r}",
    )
    count = len(processes)
    start = floats("start_s", start_s)
    require(start.shape in ((), (count,)), f"start_s must be one, or {count}: one per process")
    finite = bool((np.abs(start) < MOST_SECONDS).all())
    require(finite, f"start must be finite seconds, within {MOST_SECONDS:.3g}")
    start = np.broadcast_to(start, count)
    seeds = _indices("seed", seed, count, 2**63)
    ids = _indices("stream", range(count) if streams is None else streams, count, 2**32)
    if rng == "jax":
        offsets = _sample(processes, duration_s, seeds, ids)
        times = [first + offset for first, offset in zip(start, offsets, strict=True)]
    else:
        random = np.random.RandomState(0)  # seeding one anew is much faster than making many
        times = [
            _sample_legacy(process, duration_s, float(first), int(number), random)
            for process, first, number in zip(processes, start, seeds + ids, strict=True)
        ]
    return [t[: np.searchsorted(t, end)] for t, end in zip(times, start + duration_s, strict=True)]


def _indices(name: str, values: ArrayLike, count: int, limit: int) -> NDArray[np.int64]:
    try:
        numbers = np.asarray(values)
    except ValueError:
        numbers = np.asarray(np.nan)
    valid = numbers.size == 0 or (
        numbers.dtype.kind in "iu" and numbers.min() >= 0 and int(numbers.max()) < limit
    )
    got = reprlib.repr(values)
    require(bool(valid), f"every {name} must be an integer in [0, {limit}), got {got}")
    require(numbers.shape in ((), (count,)), f"{name} must be one, or {count}: one per process")
    return np.broadcast_to(numbers.astype(np.int64), count)


def _require_few(expected: float) -> None:
    require(
        expected <= MOST_ARRIVALS,
        f"a stream has at most {MOST_ARRIVALS} arrivals, not about {expected:.3g}: "
        "lower the rate or the duration",
    )


def _deterministic(process: Deterministic, duration_s: float) -> Floats:
    if process.rate_rps == 0:
        return np.empty(0)
    _require_few(duration_s * process.rate_rps)
    return np.arange(math.ceil(duration_s * process.rate_rps) + 1) / process.rate_rps


# --- the published generator ---------------------------------------------------------------------


def _sample_legacy(
    process: Process, duration_s: float, start_s: float, seed: int, random: np.random.RandomState
) -> Floats:
    match process:
        case Deterministic():
            return start_s + _deterministic(process, duration_s)
        case Poisson(rate):
            cv = 1.0
        case Gamma(rate, cv):
            pass
        case _:
            raise ValueError(f"rng='legacy' has no {process}, only gamma, poisson, deterministic")
    if rate == 0:
        return np.empty(0)
    _require_few(rate * duration_s)
    random.seed(seed)
    size = max(int(rate * duration_s * 1.2), 1)
    last, blocks = start_s, []
    while last < start_s + duration_s:
        gaps = random.gamma(1 / cv**2, cv**2 / rate, size)
        # Summed in this order, block after block: the published results hang on the rounding.
        blocks.append(np.cumsum(np.concatenate([[last], gaps]))[1:])
        last = blocks[-1][-1]
    return np.concatenate([np.empty(0), *blocks])


# --- counter-based sampling ----------------------------------------------------------------------


class _Renewal(NamedTuple):
    """A sum of gaps to be followed until it reaches `end`; `gaps` makes them of all draws so far.

    `shape` is that of the gamma draws (of mean 1), or None where draws are unit exponentials;
    `expected` is about how many draws it takes; blocks are counted from `first_block`.
    """

    seed: int
    stream: int
    shape: float | None
    gaps: Callable[[Floats], Floats]
    end: float
    expected: float
    first_block: int = 0


def _sample(
    processes: Sequence[Process],
    duration_s: float,
    seeds: NDArray[np.int64],
    streams: NDArray[np.int64],
) -> list[Floats]:
    """Arrivals of every process, seconds after the start, running on to `duration_s` or beyond."""
    out = [np.empty(0)] * len(processes)
    modulated = {i: p for i, p in enumerate(processes) if isinstance(p, UniformMMPP)}
    paths = dict(zip(modulated, _rate_paths(modulated, duration_s, seeds, streams), strict=True))
    exponential, gamma = dict[int, _Renewal](), dict[int, _Renewal]()
    for i, process in enumerate(processes):
        renewal = functools.partial(_Renewal, int(seeds[i]), int(streams[i]))
        match process:
            case Deterministic():
                out[i] = _deterministic(process, duration_s)
            case UniformMMPP():
                total = paths[i].integral[-1]
                exponential[i] = renewal(None, np.asarray, total, total)
            case Poisson(rate) if rate > 0:
                exponential[i] = renewal(None, _scaled_by(rate), duration_s, rate * duration_s)
            case Gamma(rate, cv) if rate > 0:
                count = rate * duration_s
                count = (count + 3 * cv * math.sqrt(count)) / ACCEPTANCE
                gamma[i] = renewal(cv**-2, _scaled_by(rate), duration_s, count)
            case RenewalProcess():
                count = duration_s / process.mean_gap_s if process.mean_gap_s > 0 else 0.0
                exponential[i] = renewal(None, _checked(process), duration_s, count)
    for renewals in (exponential, gamma):
        for i, (_, sums) in zip(renewals, _follow(list(renewals.values())), strict=True):
            out[i] = paths[i].when(sums) if i in paths else sums
    return out


def _scaled_by(rate: float) -> Callable[[Floats], Floats]:
    def gaps(draws: Floats) -> Floats:
        with np.errstate(over="ignore"):  # of a rate that is next to none
            return draws / rate

    return gaps


def _checked(process: RenewalProcess) -> Callable[[Floats], Floats]:
    def gaps(draws: Floats) -> Floats:
        made = process.gaps_s(draws)
        valid = made.shape == draws.shape and (made >= 0).all() and made.any()
        require(bool(valid), f"{process}: gaps must be seconds >= 0, one for each draw, not all 0")
        return made

    return gaps


class _RatePath(NamedTuple):
    """When the rate of an MMPP changes, from 0 to the duration, and its integral up to there."""

    time_s: Floats
    integral: Floats

    def when(self, integral: Floats) -> Floats:
        """An MMPP is a unit Poisson process in the time that its integrated rate keeps."""
        return np.interp(integral[integral < self.integral[-1]], self.integral, self.time_s)


def _rate_paths(
    processes: dict[int, UniformMMPP],
    duration_s: float,
    seeds: NDArray[np.int64],
    streams: NDArray[np.int64],
) -> list[_RatePath]:
    renewals = [
        _Renewal(
            seed=int(seeds[i]),
            stream=int(streams[i]),
            shape=None,
            gaps=functools.partial(_stays_s, process),
            end=duration_s,
            expected=2 * duration_s / float(np.mean(process.mean_stay_s)),
            first_block=STATE_BLOCKS,
        )
        for i, process in processes.items()
    ]
    paths = []
    for process, (draws, ends) in zip(processes.values(), _follow(renewals), strict=True):
        time_s = np.concatenate([[0.0], np.minimum(ends, duration_s)])
        rate = np.asarray(process.rates_rps, np.float64)[_states(process, draws)]
        integral = np.concatenate([[0.0], np.cumsum(rate * np.diff(time_s))])
        paths.append(_RatePath(time_s, integral))
    return paths


def _states(process: UniformMMPP, draws: Floats) -> NDArray[np.int64]:
    """The states visited: the second draw of each pair, made uniform, chooses where to go."""
    choice = -np.expm1(-draws[1::2])
    shares = np.cumsum(process.mean_stay_s) / np.sum(process.mean_stay_s)
    steps = 1 + np.floor(choice * (len(shares) - 1)).astype(np.int64)
    steps[:1] = np.searchsorted(shares[:-1], choice[:1], side="right")
    return np.cumsum(steps) % len(shares)


def _stays_s(process: UniformMMPP, draws: Floats) -> Floats:
    return np.asarray(process.mean_stay_s)[_states(process, draws)] * draws[::2]


def _follow(renewals: Sequence[_Renewal]) -> list[tuple[Floats, Floats]]:
    """Of renewals of one kind, the draws and the sums of their gaps, as far as `end` at least."""
    for renewal in renewals:
        _require_few(renewal.expected)
    draws = [np.empty(0) for _ in renewals]
    sums = [np.empty(0) for _ in renewals]
    done = [0] * len(renewals)
    pending = [i for i, renewal in enumerate(renewals) if renewal.end > 0]
    while pending:
        more = [done[i] // 2 if done[i] else int(renewals[i].expected / BLOCK) for i in pending]
        blocks = [
            range(done[i], done[i] + count + 1) for i, count in zip(pending, more, strict=True)
        ]
        new = _draw([renewals[i] for i in pending], blocks)
        for i, drawn, values in zip(pending, blocks, new, strict=True):
            draws[i] = np.concatenate([draws[i], values[values >= 0]])
            sums[i] = np.cumsum(renewals[i].gaps(draws[i]))
            done[i] = drawn.stop
        pending = [i for i in pending if not sums[i][-1:] >= renewals[i].end]
    return list(zip(draws, sums, strict=True))


def _draw(renewals: Sequence[_Renewal], blocks: Sequence[range]) -> list[Floats]:
    """The draws, of mean 1, in the given blocks of each renewal; negative ones do not count."""
    from beta_jax import backend  # which loads JAX

    exponential = renewals[0].shape is None
    counts = [len(drawn) for drawn in blocks]
    columns = [
        np.repeat([r.seed for r in renewals], counts),
        np.repeat([r.stream for r in renewals], counts),
        np.repeat([r.first_block for r in renewals], counts)
        + np.concatenate([np.asarray(drawn) for drawn in blocks]),
    ]
    if not exponential:
        columns.append(np.repeat([r.shape for r in renewals], counts))
    columns = [np.pad(column, (0, -sum(counts) % CHUNK), mode="edge") for column in columns]
    program = _program(exponential)
    with backend.on_cpu():
        calls = [
            program(*(column[first : first + CHUNK] for column in columns))
            for first in range(0, len(columns[0]), CHUNK)
        ]
    draws = np.concatenate(calls)
    last = np.cumsum(counts)
    return [draws[b - n : b].ravel() for b, n in zip(last, counts, strict=True)]


@functools.cache
def _program(exponential: bool) -> Callable[..., Any]:
    """The one compiled function of each kind, over a chunk of tasks."""
    import jax
    import jax.numpy as jnp

    def uniforms(seed: jax.Array, stream: jax.Array, block: jax.Array, rows: int) -> jax.Array:
        key = jax.random.key(seed, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, stream), block)
        # Midpoints of the generator's grid of 2**-52: never 0 or 1, so no logarithm is infinite.
        return jax.random.uniform(key, (rows, BLOCK), jnp.float64) + 2.0**-53

    def exponentials(seed: jax.Array, stream: jax.Array, block: jax.Array) -> jax.Array:
        return -jnp.log(uniforms(seed, stream, block, 1)[0])

    def gammas(seed: jax.Array, stream: jax.Array, block: jax.Array, shape: jax.Array) -> jax.Array:
        """Marsaglia and Tsang (2000) for shape + 1, times U**(1/shape): exact for every shape.

        A rejected proposal is not drawn anew but left out. As gaps are independent of each other,
        the accepted ones in a row are the process, and no loop waits for the unluckiest lane.
        """
        u = uniforms(seed, stream, block, 3)
        normal = np.sqrt(2) * jax.scipy.special.erfinv(2 * u[0] - 1)
        d = shape + 2 / 3
        v = (1 + normal / jnp.sqrt(9 * d)) ** 3
        bound = normal**2 / 2 + d * (1 - v + jnp.log(jnp.where(v > 0, v, 1)))
        accepted = (v > 0) & (jnp.log(u[1]) < bound)
        return jnp.where(accepted, d * v * jnp.exp(jnp.log(u[2]) / shape) / shape, -1.0)

    return jax.jit(jax.vmap(exponentials if exponential else gammas))
