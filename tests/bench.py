"""Devices that take as long as is said, so that what is measured is known; nothing is compiled."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from beta_jax.profiles import measure
from beta_jax.profiles.architectures import Architecture
from beta_jax.profiles.measure import Measured, MeasureSettings, measure_profile
from beta_jax.profiles.measure.model import Program, SplitModel

COST_S = {"embedding": 0.5, "dense": 2.0, "experts": 5.0, "output": 3.0}
"""Of a part at batch size 1; at others it is as many times as much."""
ACT_BYTES = 1000
QUICK = MeasureSettings(warmup=1, repeats=3)


class Bench:
    """Devices, and a clock that sees nothing else.

    runs: parts and batch sizes that were run. fails_at: those that raise an error instead.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.cost_s = dict(COST_S)
        self.runs: list[tuple[str, int]] = []
        self.fails_at: dict[tuple[str, int], str] = {}

    def program(self, part: str, batch: int) -> Program:
        def run(weights: object, x: np.ndarray) -> np.ndarray:
            if (part, batch) in self.fails_at:
                raise jax.errors.JaxRuntimeError(self.fails_at[part, batch])
            self.runs.append((part, batch))
            self.now_s += self.cost_s[part] * batch
            return x

        return Program(run, ACT_BYTES * batch)

    def measure(self, shape: Architecture, **options) -> Measured:
        asked = {"pps": (1, 2, 3), "batches": (1, 4), "settings": QUICK} | options
        return measure_profile({"m": shape}, clock=lambda: self.now_s, **asked)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Have whatever is measured run here."""
        patch.setattr(SplitModel, "_compile", lambda model, *of: self.program(*of))
        patch.setattr(SplitModel, "load", lambda model, span: [{}] * len(model.parts(span)))
        patch.setattr(SplitModel, "input", lambda model, span, batch: np.zeros(batch))
        timed = functools.partial(measure_profile, clock=lambda: self.now_s)
        patch.setattr(measure, "measure_profile", timed)
