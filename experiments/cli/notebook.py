"""Experiments in a notebook.

import experiments
results = experiments.run("sec6_3", slo_scale=4, seeds=8)
results.to_pandas(), results.plot(), results.intervals(), results.differences()
"""

from __future__ import annotations

import time
from typing import Any

from experiments.cli import configs
from experiments.engine import fields
from experiments.engine.executor import Embedded
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch
from experiments.experiment import Experiment
from experiments.report.results import Results


def run(name: str, **changes: Any) -> Results:
    """Run a config, `NAME` or `NAME:VARIANT`, with some fields changed; writes no file.

    Lists are given as such, nested fields as their dataclass (`rules=Rules(...)`). Raises
    ValueError for a config that is not made of points, unknown fields and values of a wrong type,
    and what running it raises.
    """
    loaded = configs.load(name)
    if not isinstance(loaded.experiment, Experiment):
        raise ValueError(f"{name} is not made of points; use beta_jax.place and beta_jax.simulate")
    config = fields.replace(loaded.default, changes)
    return loaded.experiment.run(config, Store(None), Stopwatch(time.perf_counter()), Embedded())
