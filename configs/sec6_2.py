"""End to end: SLO attainment on replayed traces against devices, rate, CV, SLO (section 6.2).

    python run.py --config sec6_2

Takes X
"""

from __future__ import annotations

import dataclasses

from experiments import sec6_2 as experiment

CONFIG = experiment.Config(
    columns=tuple(experiment.COLUMNS),
    maf1="maf1_like",
    maf2="maf2_like",
    maf1_train="0.0.0-0.1.0",
    maf1_test="0.0.0-0.1.0",
    maf1_window_s=60.0,
    maf2_train="13.0.0-13.23.60",
    maf2_test="13.0.0-13.23.60",
    maf2_window_s=5400.0,
    maf2_train_window_s=168.75,
    profile="data/profiles/v100.json",
    rng="legacy",
    train_seed=0,
    test_seed=0,
)

VARIANTS = {name: dataclasses.replace(CONFIG, columns=(name,)) for name in experiment.COLUMNS} | {
    "smoke": dataclasses.replace(
        CONFIG,
        columns=("S1@MAF1",),
        maf1_train="0.0.0-0.0.10",
        maf1_test="0.0.0-0.0.10",
        num_devices=(8, 16),
        rate_scale=(),
        cv_scale=(),
        slo_scale=(),
    )
}
