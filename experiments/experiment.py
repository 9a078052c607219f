"""From a config to its results: on disk for the command line, in memory for a notebook.

import experiments
results = experiments.run("sec6_3", slo_scale=4, seeds=8)
results.to_pandas(), results.plot(), results.intervals(), results.differences()
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.engine import fields
from experiments.engine.points import Point, Replications
from experiments.engine.store import FILE, Store
from experiments.engine.timing import Stopwatch
from experiments.report import results
from experiments.report.results import Results

FILES = (*results.FILES, FILE)
"""What `execute` writes."""


def execute(
    points: Iterable[Point], plan: Replications, directory: Path, stopwatch: Stopwatch
) -> Results:
    """Compute what the directory's store lacks; print the results and write the tables."""
    with stopwatch.imports():
        from experiments.engine import runner
    found = runner.run_points(points, plan, open_store(directory), stopwatch)
    found.save(directory)
    found.report()
    return found


def open_store(directory: Path) -> Store:
    """The results stored in a directory, with a warning if some of them were damaged."""
    store = Store(directory / FILE)
    if store.damaged:
        lines = "1 line" if store.damaged == 1 else f"{store.damaged} lines"
        print(
            f"warning: {lines} of {directory / FILE} were damaged and are gone; "
            f"{len(store.records)} sound results are kept",
            file=sys.stderr,
        )
    return store


def run(name: str, **changes: Any) -> Results:
    """Run a config, `NAME` or `NAME:VARIANT`, with some fields changed; writes no file.

    Lists are given as such, nested fields as their dataclass (`rules=Rules(...)`). Raises
    ValueError for a config that is not made of points, unknown fields and values of a wrong type,
    and what running it raises.
    """
    name, _, variant = name.partition(":")
    try:
        module: Any = importlib.import_module(f"configs.{name}")
        default = module.VARIANTS[variant] if variant else module.CONFIG
    except (ModuleNotFoundError, KeyError):
        raise ValueError(f"no config is called {name}{':' * bool(variant)}{variant}") from None
    if not hasattr(module.experiment, "points"):
        raise ValueError(f"{name} is not made of points; use beta_jax.place and beta_jax.simulate")
    changed = fields.replace(default, changes)
    from experiments.engine import runner

    stopwatch = Stopwatch(time.perf_counter())
    found = runner.run_points(module.experiment.points(changed), changed, Store(None), stopwatch)
    return dataclasses.replace(found, figure=module.experiment.figure)
