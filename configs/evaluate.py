"""Evaluate a placement: SLO attainment and latency per model and group for your own requests.

    python run.py --config evaluate                # a shipped example
    python run.py --config evaluate --config.placement=P.json --config.profile=F.json \\
        --config.requests=R.csv
    python run.py --config evaluate --config.timeline=110,125    # timeline.json of these seconds
    python run.py --config evaluate --config.placement=A.json,B.json    # side by side

Takes 3 s. Expect an SLO attainment of 90.9 % on the example, and a p99 latency of 1.18 s. Of the
221 requests that missed, 195 were late behind other models: they would have been in time without
these in their group. 26 were late behind requests of their own model alone.

misses.csv counts the reasons per model and group (`beta_jax/analysis/misses.py`): no replica; even
an idle group takes longer than the SLO; sent to a group that always does, though another hosts the
model; behind its own model; behind others. utilisation.csv and its figure say how busy every group
was over time. timeline.json, for https://ui.perfetto.dev, shows what every stage worked on.

R.csv has the columns arrival_s,model (seconds, a name from P.json); P.json is a placement file, as
`quickstart` writes them, that gives every model its type and its SLO. Several placements share
models by name; changes.csv tells what changes from the first to each other one: the replicas added,
dropped and kept in each group, and the bytes of weights to load.
"""

from __future__ import annotations

from experiments.tools import evaluate

EXPERIMENT = evaluate.TASK
CONFIG = evaluate.Config(
    placement=("data/examples/placement.json",),
    profile="data/profiles/v100.json",
    requests="data/examples/requests.csv",
)
