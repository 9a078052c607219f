"""Find a placement for your own requests, compare it with selective replication, and save it.

    python run.py --config quickstart              # a shipped example
    python run.py --config quickstart --config.requests=R.csv --config.model_types=bert-2.6b \\
        --config.num_devices=16

Takes 3 s. Expect on the example (8 x bert-2.6b on 4 devices) 90.9 % for mp-search, which pools the
devices into one pipeline, and 58.7 % for sr-greedy. Why: of its 1003 misses 653 queued behind
bursts of their own model, which in the pipeline is rare (26), and 186 had no replica.

R.csv has the columns arrival_s,model. The best placement is written as placement.json, for
`evaluate`. Name other requests by --config.test_requests to test it on what it was not made for,
or keep the last part of R.csv for that; without either, table and figure say that it was trained on
the test traffic.

Improve what runs today, moving at most so many GiB of weights:

    python run.py --config quickstart --config.start_from=data/examples/placement.json \\
        --config.max_moved_gib=30 --config.num_devices=8 --config.test_share=0.3

Takes 7 s, and 13 s the first time. Expect on the last 30 % of the example's requests 91.9 % today
and 98.5 % for `local-search` (90.4 and 98.9 % in training), for 15.5 GiB of weights in a second
group;
mp-search, which the bound does not hold, reaches 100 % for 41.4 GiB. changes.csv says what changes
in each group, history.csv and its figure how the search went on, certificates.csv what no placement
exceeds on the training requests.
--config.local_search.budget_simulations=100000 searches longer, --config.train_slices=8
--config.local_search.worst_share=0.25 for the worst quarter of the training time.

How many devices are enough, the config `plan` finds.
"""

from __future__ import annotations

from experiments.tools import quickstart

EXPERIMENT = quickstart.TASK
CONFIG = quickstart.Config(
    requests="data/examples/requests.csv",
    model_types=("bert-2.6b",),
    profile="data/profiles/v100.json",
    num_devices=(4,),
    policies=("mp-search", "sr-greedy"),
)
