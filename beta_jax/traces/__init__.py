"""Real traffic: reading traces, replaying them for any number of models, generating similar ones.

    trace = beta_jax.load_trace("azure_functions_2019/")
    scale = 2e-3 * beta_jax.traces.reference_scale(trace)
    workload = beta_jax.replay(trace, 48, start="0.0.0", end="0.1.0", rate_scale=scale, cv_scale=4)

`python -m beta_jax.traces fetch maf1 --to DIR` downloads a published trace.
"""

from __future__ import annotations

import os
from pathlib import Path

from beta_jax.traces import readers
from beta_jax.traces.complete import complete
from beta_jax.traces.generate import GENERATORS, maf1_like, maf2_like
from beta_jax.traces.readers import load_trace
from beta_jax.traces.replay import Traffic, fit_traffic, reference_scale, replay
from beta_jax.traces.report import Statistics, draw, figure, table
from beta_jax.traces.trace import ArrivalTrace, CountTrace, RateTrace, Trace, TraceError

__all__ = [
    "GENERATORS",
    "ArrivalTrace",
    "CountTrace",
    "RateTrace",
    "Statistics",
    "Trace",
    "TraceError",
    "Traffic",
    "complete",
    "draw",
    "figure",
    "fingerprint",
    "fit_traffic",
    "is_generated",
    "load_trace",
    "maf1_like",
    "maf2_like",
    "open_trace",
    "reference_scale",
    "replay",
    "table",
]


def open_trace(
    source: str | os.PathLike[str],
    *,
    seed: int = 0,
    kind: str | None = None,
    cache: bool | str | os.PathLike[str] = True,
) -> Trace:
    """The generated trace of that name (`GENERATORS`), made from the seed, else `load_trace`.

    Raises TraceError.
    """
    if is_generated(source):
        return GENERATORS[os.fspath(source)](seed=seed)
    _check_is_there(source)
    return load_trace(source, kind=kind, cache=cache)


def is_generated(source: str | os.PathLike[str]) -> bool:
    """Whether `open_trace` generates this trace."""
    return os.fspath(source) in GENERATORS and not Path(source).exists()


def fingerprint(source: str | os.PathLike[str]) -> str:
    """A hash of the files that `open_trace(source)` reads, or the name of what it generates.

    Raises TraceError.
    """
    if is_generated(source):
        return os.fspath(source)
    _check_is_there(source)
    return readers.fingerprint(Path(source))


def _check_is_there(source: str | os.PathLike[str]) -> None:
    if not Path(source).exists():
        raise TraceError(
            f"{os.fspath(source)}: No such file or folder. Generated traces are "
            f"{' and '.join(GENERATORS)}; `python -m beta_jax.traces fetch` downloads real ones"
        )
