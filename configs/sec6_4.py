"""Robustness: placements trained on one hour of a trace and tested on another (section 6.4).

    python run.py --config sec6_4                                # on a generated trace
    python run.py --config sec6_4 --config.trace=DIR_OR_FILE     # on your copy of Azure 2019
    python run.py --config sec6_4 --config.seeds=4               # with 95 % intervals
    python run.py --config sec6_4:smoke                          # two pairs of ten minutes

Takes 2 minutes on 2 CPU cores. Expect on the generated trace, at the base point (16 devices), 90.4
% for Beta, 89.0 % for Clockwork++ and 56.0 % for SR. Beta stays above Clockwork++, which sees the
test traffic, up to a rate scale of 2e-3. Beyond that the devices are overloaded, and nothing is
left to serve models that were rare in training.

Forty-eight models of 1.3 billion parameters share 16 devices. SR and Beta are placed for one hour
and tested on another, of another day; Clockwork++ is placed anew every two minutes, for the very
traffic of the test. Curves are means over three pairs of hours, the published ones (drawn after
`numpy.random.seed(1)`: days of training, hours of training, days and hours of test); intervals are
over seeds, never over pairs. The mapping of functions to models is made anew for each hour, as
published, so that it is another model that is popular in the test.

Rates are scaled so that the trace's first hour has those of the full trace (10,000 requests/s at
scale 1). A trace of fewer than fourteen days keeps its own and gets generated ones for the others,
in which popular functions stay popular; so of a single day, given as d01, the hours 0.12 and 0.7
are real.
"""

from __future__ import annotations

import dataclasses

from experiments.paper import sec6_4
from experiments.paper.replays import Robustness

EXPERIMENT = sec6_4.EXPERIMENT
CONFIG = Robustness(
    trace="maf1_like",
    trains=("5.8.0-5.9.0", "11.9.0-11.10.0", "12.11.0-12.12.0"),
    tests=("5.1.0-5.2.0", "0.12.0-0.13.0", "0.7.0-0.8.0"),
    window_s=60.0,
    policies=("sr-greedy", "sr-replace-120", "mp-search"),
    profile="data/profiles/v100.json",
    rng="legacy",
    train_seed=0,
    test_seed=0,
)

VARIANTS = {
    "smoke": dataclasses.replace(
        CONFIG,
        trains=("5.8.0-5.8.10", "11.9.0-11.9.10"),
        tests=("5.1.0-5.1.10", "0.12.0-0.12.10"),
        num_devices=(8, 16),
        rate_scale=(),
        cv_scale=(),
        slo_scale=(),
    )
}
