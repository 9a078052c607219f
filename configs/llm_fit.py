"""Fit the linear model of an LLM engine's step to kernel time tables, or to measured steps.

    python run.py --config llm_fit --config.source=FOLDER     # tables of a run
    python run.py --config llm_fit --config.source=steps.csv  # as measured

Measured steps are CSV with the columns prefill_tokens, cached_tokens, decodes and time_us: tokens
of requests that are given more than one in a step, cached tokens of those that are given one, how
many these are, and what the step took. Tables are asked for 4000 random steps.

Expect four coefficients in picoseconds, by least squares of relative errors and none negative, and
the errors that they leave: a few percent in the median, more for prompts, as attention is no linear
function. SOURCE-linear.json is the engine with these coefficients, without prefix reuse, as the
batch simulator takes it.
Takes seconds.
"""

from __future__ import annotations

from experiments.tools import llm_fit

EXPERIMENT = llm_fit.TASK
CONFIG = llm_fit.Config(source="measured_run")
