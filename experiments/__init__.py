"""Experiments: what a figure is made of, how its points are run, and how tables become pictures.

`experiments.run("sec6_3", slo_scale=4)` returns its results, for a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["Results", "run"]

if TYPE_CHECKING:
    from experiments.entry import Results, run
else:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module 'experiments' has no attribute {name!r}")
        return getattr(import_module("experiments.entry"), name)
