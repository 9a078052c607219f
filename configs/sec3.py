"""Why model parallelism helps: figures 2 and 4 to 10 of the paper's section 3.

    python run.py --config sec3                  # everything
    python run.py --config sec3:two_models       # one panel group

Takes
"""

from __future__ import annotations

import dataclasses

from experiments import sec3 as experiment
from experiments.sec3.config import GROUPS, Runs, RunsAtRate, Sweep, SweepAtRate

CONFIG = experiment.Config(
    profile="data/profiles/v100.json",
    model_type="bert-2.6b",
    base_cv=3.0,
    two_models=RunsAtRate(rate_rps=3.0, duration_s=20_000.0, seeds=32),
    memory=Runs(duration_s=20_000.0, seeds=4),
    rate=Sweep(values=tuple(i * 0.8 for i in range(1, 2)), duration_s=1000.0, seeds=16),
    cv=SweepAtRate(values=(1.0,), rate_rps=20.0, duration_s=100_000.0, seeds=2),
    slo=SweepAtRate(values=(1.0,), rate_rps=30.0, duration_s=500.0, seeds=16),
    overhead=SweepAtRate(values=(1.0,), rate_rps=30.0, duration_s=500.0, seeds=16),
    theory=Sweep(values=(1.0,), duration_s=20_000.0, seeds=16),
)
VARIANTS = {name: dataclasses.replace(CONFIG, groups=(name,)) for name in GROUPS}
