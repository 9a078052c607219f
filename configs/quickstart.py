"""Find a placement for your own requests, compare it with selective replication, and save it.

    python run.py --config quickstart              # a shipped example
    python run.py --config quickstart --config.requests=R.csv --config.model_types=bert-2.6b \\
        --config.num_devices=16

Takes 3 s. Expect on the example (8 x bert-2.6b on 4 devices) 92.1 % for mp-search, which pools the
devices into one pipeline, and 58.7 % for sr-greedy. Why: of its 1004 misses 651 queued behind
bursts of their own model, which in the pipeline is rare (20), and 186 had no replica.

R.csv has the columns arrival_s,model. The best placement is written as placement.json, for
`evaluate`. Name other requests by --config.test_requests to test it on what it was not made for;
without them, table and figure say that it was trained on the test traffic.
"""

from __future__ import annotations

from experiments import quickstart as experiment

CONFIG = experiment.Config(
    requests="data/examples/requests.csv",
    model_types=("bert-2.6b",),
    profile="data/profiles/v100.json",
    num_devices=(4,),
    policies=("mp-search", "sr-greedy"),
)

VARIANTS: dict[str, experiment.Config] = {}
