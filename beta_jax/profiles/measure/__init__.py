"""Measured profiles: run the stages of a model on this machine's devices, and time them.

from beta_jax.profiles.architectures import ARCHITECTURES
from beta_jax.profiles.measure import measure_profile

shapes = {name: ARCHITECTURES[name] for name in ("bert-1.3b", "moe-2.4b")}
measured = measure_profile(shapes, ops=(1,), pps=(1, 2, 4), batches=(1, 2, 4, 8))
beta_jax.save_profile("mine.json", measured.profile())
"""

from beta_jax import backend  # noqa: F401 - sets up JAX, so it comes first
from beta_jax.profiles.measure.measuring import MeasureError, Settings, measure_profile
from beta_jax.profiles.measure.results import CUTS, Cut, Measured, Row, Stage

__all__ = [
    "CUTS",
    "Cut",
    "MeasureError",
    "Measured",
    "Row",
    "Settings",
    "Stage",
    "measure_profile",
]
