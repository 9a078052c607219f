"""Experiments: what a figure is made of, how its points are run, and how tables become pictures.

`experiments.run("sec6_3", slo_scale=4)` returns its results, for a notebook.
`experiments.experiment.Experiment` tells how to make a figure of your own.
"""

from importlib import import_module
from typing import Any

_HOME = {"Results": "report.results", "run": "cli.notebook"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    return getattr(import_module(f"experiments.{_HOME[name]}"), name)
