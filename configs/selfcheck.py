"""Check this machine: simulate what has an exact answer, and compare. Run it first.

    python run.py --config selfcheck
    python run.py --config selfcheck --config.seed=1000 --config.replications=200

Takes about a minute on 2 CPU cores, most of it compiling. Expect "all 66 checks
passed"; a failure ends with an error and exit code 1, and results of that installation cannot be
trusted. At load 0.75 the mean latency is 1.875 s (simulated: 1.889 +- 0.010 s), of three replicas
together 3.132 s; with an SLO of 2 s it serves 88.88 % in time, and an overloaded server (load 2,
SLO 8 s) 49.88 %.

The first run on a new GPU, JAX version or machine should be this one. 38 averages have an exact
answer (`beta_jax.queueing`) and must be within four standard errors of it: waits and their
quantiles, replicas, pipelines, the paper's two models on two devices, SLO attainment below and
above saturation, requests served in pairs, requests of random length. 28 more are equalities of
integers and have no tolerance: against the recurrence of a pipeline, many in lockstep or one alone,
by other dispatch rules, in batches of one, with a work of one, moved in time. All systems meet the
same traffic, so their differences go together.
"""

from __future__ import annotations

from experiments.tools import selfcheck

EXPERIMENT = selfcheck.TASK
CONFIG = selfcheck.Config()

VARIANTS = {"smoke": selfcheck.Config(replications=16, duration_s=3000.0)}
