"""Robustness: placements trained on one hour of a trace and tested on another (section 6.4).

    python run.py --config sec6_4

Takes X
"""

from __future__ import annotations

import dataclasses

from experiments import sec6_4 as experiment

CONFIG = experiment.Config(
    trace="maf1_like",
    trains=("5.8.0-5.9.0", "11.9.0-11.10.0", "12.11.0-12.12.0"),
    tests=("5.1.0-5.2.0", "0.12.0-0.13.0", "0.7.0-0.8.0"),
    window_s=60.0,
    policies=("sr-greedy", "sr-replace-120", "mp-search"),
    profile="data/profiles/v100.json",
    rng="legacy",
    train_seed=0,
    test_seed=0,
)

VARIANTS = {
    "smoke": dataclasses.replace(
        CONFIG,
        trains=("5.8.0-5.8.10", "11.9.0-11.9.10"),
        tests=("5.1.0-5.1.10", "0.12.0-0.12.10"),
        num_devices=(8, 16),
        rate_scale=(),
        cv_scale=(),
        slo_scale=(),
    )
}
