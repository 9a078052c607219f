"""Dynamic batching: SLO attainment against SLO, requests served together or alone (section 6.5).

    python run.py --config batching                      # 99 points
    python run.py --config batching --config.rules.batching=strict
    python run.py --config batching:smoke                # two SLOs, four models

Takes 50 s on 2 CPU cores the first time, 35 s from then on. Expect of Beta at SLO scale 5 64.9 %
without batches, 67.5 % with batches of 2, and 66.0 % with up to 16: batches of 2 are hardly ever
worse than none (Beta's by half a point at SLO scale 3), larger ones gain little more (at most 2.2
points, at SLO scale 14), and below SLO scale 3 there is little time for any. Without batches
Clockwork++ passes Beta from SLO scale 10 on, with batches of 2 from 12.

Sixteen models of 1.3 billion parameters share 8 devices, and 64 requests/s are more than these
serve one at a time, so that no SLO is long enough for all. Placements are made without batching,
for the traffic that they are tested on, and then serve with batches of up to 1 (which is none), 2,
4, 8 and 16 (`--config.train_batched=true` makes them for the batches).

By the published rules a batch enters the pipeline 11 ms after its group was ready for it, which
leaves the group idle meanwhile, and some groups idle longer than that. `batching=strict` mends
both: at SLO scale 5 Beta then serves 71.6 % without batches and 72.3 % with 2. As a group does not
wait for batches to fill, but does not shorten them for those behind, either, batches can hurt: by
these rules Beta's at SLO scale 3, 61.0 % with 2 after 63.6 %.
"""

from __future__ import annotations

import dataclasses

from beta_jax.types import BATCH_SIZES, Rules
from experiments.paper import batching

EXPERIMENT = batching.EXPERIMENT
CONFIG = batching.Config(
    model_types=("bert-1.3b",) * 16,
    profile="data/profiles/v100.json",
    num_devices=8,
    rate_rps=64.0,
    split="power_law",
    cv=4.0,
    slo_scale=5.0,
    duration_s=1000.0,
    rng="legacy",
    train_seed=0,
    test_seed=0,
    rules=Rules(batching="published"),
    train_batched=False,
    policies=("sr-greedy", "sr-replace-30", "mp-search"),
    max_batches=BATCH_SIZES,
    slo_scales=(0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0),
)

VARIANTS = {
    "smoke": dataclasses.replace(
        CONFIG,
        model_types=CONFIG.model_types[:4],
        num_devices=2,
        rate_rps=16.0,
        duration_s=60.0,
        policies=("sr-greedy", "mp-search"),
        max_batches=(1, 2, 4),
        slo_scales=(3.0, 10.0),
    )
}
