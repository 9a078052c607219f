"""Why model parallelism helps: figures 2 and 4 to 10 of section 3 of the paper.

    python run.py --config sec3                   # everything
    python run.py --config sec3:two_models        # a panel group; --help lists them as variants
    python run.py --config sec3:rate --config.base_cv=1    # Poisson traffic: theory at every point

Takes 70 s on 2 CPU cores, most of it for `cv`: 168 runs of two million requests, at the published
twenty CVs and at 1, where theory has an answer. Expect for two models on two devices, pooled into a
pipeline (Model Parallelism) against a device each (Simple Placement), without the overheads of the
simulated system, a mean latency 1.253 +- 0.002 times as short for Poisson traffic (0.681 to 0.544
s; the paper says 1.3), 1.89 +- 0.02 times at CV 3 (1.9), and 6.0 +- 0.2 times with 80 % of the rate
on one model (6.6); with them, 1.23, 1.85 and 6.8 +- 0.3. In the last case one queue is 95 % busy,
so overheads and chance weigh heavily; theory says 6.003 and 6.818.

Eight models on eight devices: pooled, bert-2.6b has a mean latency of 0.70 s with 7 GiB a device,
which otherwise takes three replicas on each (16.5 GiB). With 13 GiB, at 20 requests/s and CV 3, it
is 0.71 against 0.97 s; smooth traffic (CV up to 1) is served faster without pooling. At 30
requests/s the pipeline of the profile, 15 % of whose device time is overhead, falls behind
replication from SLO scale 10; even pipelines with 10 % do from 12, with 50 % at any.

The figures have the published names. Where theory has an answer (M/D/1, M/D/c, deadline admission;
Poisson traffic only) it is drawn: with the overheads of the simulation, except in queueing_theory,
which says so. `decomposition` and `scaling` show the profile alone; --config.profile=P.json shows
another. `partition` cuts the layers of the V100's cost model, whose embeddings make an even cut
uneven; `fit_profile` draws all three for a chip of yours.
"""

from __future__ import annotations

import dataclasses

from experiments.paper import sec3
from experiments.paper.sec3.config import GROUPS, Runs, RunsAtRate, Sweep, SweepAtRate


def _spaced(first: float, last: float, num: int = 20) -> tuple[float, ...]:
    return tuple(round(first + (last - first) * i / (num - 1), 6) for i in range(num))


EXPERIMENT = sec3.SECTION
CONFIG = sec3.Config(
    profile="data/profiles/v100.json",
    model_type="bert-2.6b",
    base_cv=3.0,
    two_models=RunsAtRate(rate_rps=3.0, duration_s=20_000.0, seeds=32),
    memory=Runs(duration_s=20_000.0, seeds=4),
    rate=Sweep(values=_spaced(0.8, 24.0), duration_s=1000.0, seeds=16),
    cv=SweepAtRate(
        values=tuple(sorted({1.0, *_spaced(0.1, 8.0)})),
        rate_rps=20.0,
        duration_s=100_000.0,
        seeds=4,
    ),
    slo=SweepAtRate(values=_spaced(1.0, 20.0), rate_rps=30.0, duration_s=500.0, seeds=16),
    pipeline_overheads=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5),
    theory=Sweep(values=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75), duration_s=20_000.0, seeds=64),
)
SMOKE = dataclasses.replace(
    CONFIG,
    two_models=RunsAtRate(rate_rps=3.0, duration_s=500.0, seeds=2),
    memory=Runs(duration_s=100.0, seeds=1),
    rate=Sweep(values=(8.0, 24.0), duration_s=100.0, seeds=2),
    cv=SweepAtRate(values=(1.0, 3.0), rate_rps=20.0, duration_s=200.0, seeds=1),
    slo=SweepAtRate(values=(2.0, 10.0), rate_rps=30.0, duration_s=100.0, seeds=1),
    pipeline_overheads=(1.0, 1.5),
    theory=Sweep(values=(0.5, 1.5), duration_s=2000.0, seeds=2),
)
VARIANTS = {name: dataclasses.replace(CONFIG, groups=(name,)) for name in GROUPS} | {"smoke": SMOKE}
