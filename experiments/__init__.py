"""Experiments: what a figure is made of, how its points are run, and how tables become pictures.

`experiments.run("sec6_3", slo_scale=4)` returns its results, for a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {"Results": "report.results", "run": "cli.notebook"}
__all__ = ["Results", "run"]

if TYPE_CHECKING:
    from experiments.cli.notebook import run
    from experiments.report.results import Results
else:

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'experiments' has no attribute {name!r}")
        return getattr(import_module(f"experiments.{_HOME[name]}"), name)
