"""The linear model of a step, fitted to tables or to measured steps, and how far off it is.

Measured steps are CSV with the columns

    prefill_tokens   of requests that are given more than one token
    cached_tokens    whose keys and values the decodes read
    decodes          requests that are given one token
    time_us          what the step took
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from beta_jax.llm.engine import Engine
from beta_jax.llm.linear import LinearStepTime
from beta_jax.llm.requests import LLMError
from beta_jax.llm.shapes import StepShape
from beta_jax.llm.table_files import read_rows

COUNTS = ("prefill_tokens", "cached_tokens", "decodes")
PS_PER_US = 10**6
SHORTEST, LONGEST = 16, 16384
"""Tokens that a decode of a random step has cached."""


@dataclasses.dataclass(frozen=True)
class LinearFit:
    """Coefficients, and their errors: sizes of what is predicted over what was given, less 1."""

    step_time: LinearStepTime
    steps: int
    median_error: float
    p90_error: float


def fit_linear(shape: StepShape, time_ps: NDArray[Any]) -> LinearFit:
    """The coefficients, 0 or more, with the least sum of squared relative errors.

    shape: of steps, arrays [step] that broadcast; time_ps: [step], what each took. Raises LLMError
    if there are fewer than four steps, or one took no time.
    """
    time = np.asarray(time_ps, np.float64)
    if time.ndim != 1 or len(time) < 4:
        raise LLMError(f"{time.size} steps, wanted 4 or more to fit 4 coefficients")
    if not (np.isfinite(time) & (time > 0)).all():
        step = int(np.flatnonzero(~(np.isfinite(time) & (time > 0)))[0])
        raise LLMError(f"step {step} takes {time[step]} ps, wanted more than 0")
    terms = np.stack(
        np.broadcast_arrays(np.ones_like(time), shape.prefill_tokens, shape.cached, shape.decodes),
        axis=1,
    )
    scale = np.maximum(np.linalg.norm(terms / time[:, None], axis=0), np.finfo(float).tiny)
    found = nnls(terms / time[:, None] / scale, np.ones_like(time))[0] / scale
    base, *rest = np.rint(found).astype(int).tolist()
    step_time = LinearStepTime(max(base, 1), *rest)
    error = np.abs(step_time.step_ps(shape) / time - 1)
    median, p90 = np.quantile(error, [0.5, 0.9])
    return LinearFit(step_time, len(time), float(median), float(p90))


def random_steps(engine: Engine, number: int = 4000, seed: int = 0) -> StepShape:
    """Steps that the engine might run: decodes, prompts or both, [number] each.

    Numbers of decodes and of tokens are spread evenly on a logarithmic scale, to what the sequence
    cap, the token budget and the blocks allow. Half of the steps prefill besides.
    """
    rng = np.random.default_rng(seed)

    def spread(least: Any, most: Any) -> NDArray[np.int64]:
        least = np.broadcast_to(least, number)
        factor = np.maximum(most, least) / least
        return np.rint(least * factor ** rng.random(number)).astype(np.int64)

    capacity = engine.num_blocks * engine.block_size
    decodes = spread(1, min(engine.max_num_seqs, engine.max_num_batched_tokens, capacity))
    decodes[rng.random(number) < 0.1] = 0
    longest = np.clip(capacity // np.maximum(decodes, 1), 1, LONGEST)
    mean = spread(np.minimum(SHORTEST, longest), longest)
    room = engine.max_num_batched_tokens - decodes
    prefills = (room >= 2) & ((decodes == 0) | (rng.random(number) < 0.5))
    begun = prefills & (rng.random(number) < 0.3)
    several = decodes > 1
    return StepShape(
        requests=decodes + prefills,
        prefill_tokens=np.where(prefills, spread(2, room), 0),
        prefill_cached=np.where(begun, spread(1, min(LONGEST, capacity)), 0),
        decodes=decodes,
        cached=decodes * mean,
        most_cached=np.where(several, spread(mean, 4 * mean), mean) * (decodes > 0),
        least_cached=np.where(several, mean // spread(1, 4), mean) * (decodes > 0),
    )


def read_steps(path: str | os.PathLike[str]) -> tuple[StepShape, NDArray[np.float64]]:
    """Measured steps and what each took in picoseconds. Raises LLMError."""
    frame = read_rows(Path(path), COUNTS, "time_us", unique=False)
    prefill, cached, decodes = (frame[name].to_numpy() for name in COUNTS)
    nothing = np.zeros_like(prefill)
    # Only what the linear model looks at is measured.
    shape = StepShape(decodes, prefill, nothing, decodes, cached, nothing, nothing)
    return shape, frame["time_us"].to_numpy() * PS_PER_US
