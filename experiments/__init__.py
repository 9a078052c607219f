"""Experiments: what a figure is made of, how its points are run, and how tables become pictures.

`experiments.run("sec6_3", slo_scale=4)` returns its results, for a notebook.
"""

from typing import Any

__all__ = ["Results", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    from experiments import experiment

    return getattr(experiment, name)
