"""Attainment against load bandwidth: placing once, or anew every minute and loading weights.

    python run.py --config loading
    python run.py --config loading --config.policies=mp-search,mp-replace-300
    python run.py --config loading:smoke       # five minutes of traffic, two bandwidths

Takes 50 s on 2 CPU cores. Expect on the generated trace 95.9 % for Beta, which places once and so
loads nothing; placed anew every minute for the minute before it has 55.6 % with 0.25 GiB/s per
device and 86.3 % with 8, and Clockwork++ (sr-replace-60) 82.3 and 90.7 %.

Forty-eight models of 1.3 billion parameters share 16 devices, in the first hour of Azure Functions
2019 as generated, or --config.trace=FILE. A group that changes is served by its new models when
their weights are there; one that stays keeps its queue. `sr-replace-60` sees the very minute that
it places for, which nobody can, and `mp-search` the whole hour, as in section 6.2 of the paper;
`mp-replace-60` sees what was. --config.load_gib_s is any other config's field, too; without it a
change is free, as published.
"""

from __future__ import annotations

import dataclasses

from experiments.tools import loading

EXPERIMENT = loading.EXPERIMENT
CONFIG = loading.Config(
    model_types=("bert-1.3b",) * 48,
    profile="data/profiles/v100.json",
    num_devices=16,
    slo_scale=5.0,
    trace="maf1_like",
    train="0.0.0-0.1.0",
    test="0.0.0-0.1.0",
    window_s=60.0,
    rate_scale=2e-3,
    cv_scale=4.0,
    rng="legacy",
    train_seed=0,
    test_seed=0,
    policies=("mp-search", "mp-replace-60", "sr-replace-60"),
    loads_gib_s=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
)

VARIANTS = {
    "smoke": dataclasses.replace(
        CONFIG, train="0.0.0-0.0.5", test="0.0.0-0.0.5", loads_gib_s=(0.5, 8.0)
    )
}
