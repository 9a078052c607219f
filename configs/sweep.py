"""A sweep of your own: any axes as lists, your models and profile, tables and figures.

    python run.py --config sweep                   # an example
    python run.py --config sweep --config.num_devices=8,16,32 --config.rates=10,20 \\
        --config.policies=sr-greedy,mp-search --config.profile=my.json --config.seeds=8

Takes 6 s. Expect, for 16 x bert-1.3b at 8 requests/s on 4 devices, 95.5 +- 1.5 % for mp-search and
64.4 +- 2.8 % for sr-greedy, a difference of 31.1 percentage points (29.1 to 33.1, paired).

Of the axes with several values one is drawn along x, and every combination of the others is a
panel; --config.combine=zip takes the first value of each, then the second. The file of
--config.models=M.csv has a row per model and the columns type, name, rate_share, and slo_s or
slo_scale; all but the type may be left out. Training and test traffic have different seeds.

Results are stored as they are finished: the same command goes on after an interruption, and
--config.seeds=16 after --config.seeds=8 computes 8 more.
"""

from __future__ import annotations

import dataclasses

from experiments.tools import sweep

EXPERIMENT = sweep.EXPERIMENT
CONFIG = sweep.Config(
    policies=("sr-greedy", "mp-search"),
    num_devices=(4, 8, 16),
    rates=(4.0, 8.0),
    cvs=(4.0,),
    slo_scales=(5.0,),
    model_types=("bert-1.3b",),
    num_models=(16,),
    durations_s=(300.0,),
    profile=("data/profiles/v100.json",),
    rng="jax",
    train_seed=0,
    test_seed=1,
    seeds=8,
)

VARIANTS = {"smoke": dataclasses.replace(CONFIG, durations_s=(60.0,), seeds=1)}
