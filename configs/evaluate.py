"""Evaluate a placement: SLO attainment and latency per model and group for your own requests.

    python run.py --config evaluate                # a shipped example
    python run.py --config evaluate --config.placement=P.json --config.profile=F.json \\
        --config.requests=R.csv

Takes 2 s. Expect an SLO attainment of 92.1 % on the example, and a p99 latency of 1.17 s.

R.csv has the columns arrival_s,model (seconds, a name from P.json); P.json is a placement file, as
`quickstart` writes them, that gives every model its type and its SLO.
"""

from __future__ import annotations

from experiments import evaluate as experiment

CONFIG = experiment.Config(
    placement="data/examples/placement.json",
    profile="data/profiles/v100.json",
    requests="data/examples/requests.csv",
)

VARIANTS: dict[str, experiment.Config] = {}
