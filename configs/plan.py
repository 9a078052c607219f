"""What do you need for 99 %? Devices, the cheapest mix of them, and how far rates and SLOs may go.

    python run.py --config plan                    # a shipped example
    python run.py --config plan --config.requests=R.csv --config.model_types=bert-2.6b \\
        --config.num_devices=32
    python run.py --config plan --config.pools=POOLS.csv         # the cheapest mix, by their prices
    python run.py --config plan --config.questions=rate,slo --config.num_devices=8
    python run.py --config plan --config.requests=none --config.rate_rps=20 --config.cv=4

Takes 8 s. Expect on the example (8 x bert-2.6b) that 8 devices do, with 99.95 % (99.90 to 100) over
40 workloads like the log, and 7 do not, with 98.3 %, for bursts. With 8 rates may grow 1.8-fold.

R.csv has the columns arrival_s,model. Placements are made for one workload drawn from it, in whole
blocks of --config.block_s, and tested on --config.seeds others; --config.fit draws them from gamma
processes fitted to it. --config.trace plans for a trace, --config.rate_rps for generated traffic.

plan.csv has a row for everything that was tried, answers.csv one for each question: the answer with
its 95 % interval, its price, what binds one step below it (memory, work, bursts or the SLO) and by
which factor rates may still grow, and attainment with the worst node down. placement.json is what
to deploy; `evaluate` reads it.

docs/planning.md goes from a log and two profiles with prices to an answer.
"""

from __future__ import annotations

from experiments.tools import plan

EXPERIMENT = plan.TASK
CONFIG = plan.Config(
    requests="data/examples/requests.csv",
    model_types=("bert-2.6b",),
    profile="data/profiles/v100.json",
    num_devices=32,
    block_s=20.0,
)
