"""Measured profiles: run the stages of a model on this machine's devices, and time them.

    shapes = {name: beta_jax.ARCHITECTURES[name] for name in ("bert-1.3b", "moe-2.4b")}
    measured = beta_jax.measure_profile(shapes, pps=(1, 2, 4), batches=(1, 2, 4, 8))
    beta_jax.save_profile("mine.json", measured.profile())

See docs/profiling.md.
"""

from beta_jax import backend  # noqa: F401 - sets up JAX, so it comes first
from beta_jax.profiles.measure.measuring import MeasureError, MeasureSettings, measure_profile
from beta_jax.profiles.measure.results import CUTS, Cut, Measured, Row, Stage

__all__ = [
    "CUTS",
    "Cut",
    "MeasureError",
    "MeasureSettings",
    "Measured",
    "Row",
    "Stage",
    "measure_profile",
]
