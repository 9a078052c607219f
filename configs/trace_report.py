"""Statistics of traces side by side: rate, popularity, burstiness, autocorrelation.

    python run.py --config trace_report --config.trace=my_trace.csv,maf1_like
    python run.py --config trace_report --config.start=0.8.0 --config.end=0.12.0

Takes 3 s for the two generated traces (14 days each). A real trace is a file or a folder in one of
the formats that `python -m beta_jax.traces report --help` names; `python -m beta_jax.traces fetch`
downloads published ones. Expect the generated Azure 2019 trace (`maf1_like`) to have a thousand
functions of which 1 % make about half of the requests, and `maf2_like` fewer and burstier ones.
"""

from __future__ import annotations

from experiments.tools import trace_report

EXPERIMENT = trace_report.TASK
CONFIG = trace_report.Config(trace=("maf1_like", "maf2_like"))
