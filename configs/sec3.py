"""Why model parallelism helps: figures 2 and 4 to 10 of the paper's section 3.

    python run.py --config sec3                  # everything
    python run.py --config sec3:two_models       # one panel group

Takes
"""

from __future__ import annotations

import dataclasses

from experiments import sec3 as experiment
from experiments.sec3.config import GROUPS, Runs, RunsAtRate, Sweep, SweepAtRate


def _spaced(first: float, last: float, num: int = 20) -> tuple[float, ...]:
    return tuple(round(first + (last - first) * i / (num - 1), 6) for i in range(num))


CONFIG = experiment.Config(
    profile="data/profiles/v100.json",
    model_type="bert-2.6b",
    base_cv=3.0,
    two_models=RunsAtRate(rate_rps=3.0, duration_s=20_000.0, seeds=32),
    memory=Runs(duration_s=20_000.0, seeds=4),
    rate=Sweep(values=_spaced(0.8, 24.0), duration_s=1000.0, seeds=16),
    cv=SweepAtRate(
        values=tuple(sorted({1.0, *_spaced(0.1, 8.0)})),
        rate_rps=20.0,
        duration_s=100_000.0,
        seeds=4,
    ),
    slo=SweepAtRate(values=_spaced(1.0, 20.0), rate_rps=30.0, duration_s=500.0, seeds=16),
    pipeline_overheads=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5),
    theory=Sweep(values=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75), duration_s=20_000.0, seeds=16),
)
SMOKE = dataclasses.replace(
    CONFIG,
    two_models=RunsAtRate(rate_rps=3.0, duration_s=500.0, seeds=2),
    memory=Runs(duration_s=100.0, seeds=1),
    rate=Sweep(values=(8.0, 24.0), duration_s=100.0, seeds=2),
    cv=SweepAtRate(values=(1.0, 3.0), rate_rps=20.0, duration_s=200.0, seeds=1),
    slo=SweepAtRate(values=(2.0, 10.0), rate_rps=30.0, duration_s=100.0, seeds=1),
    pipeline_overheads=(1.0, 1.5),
    theory=Sweep(values=(0.5, 1.5), duration_s=500.0, seeds=2),
)
VARIANTS = {name: dataclasses.replace(CONFIG, groups=(name,)) for name in GROUPS} | {"smoke": SMOKE}
