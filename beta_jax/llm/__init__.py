"""Engines that serve language models with continuous batching, exact to the token.

Nothing of the rest of the package depends on this room. See `docs/llm.md`.
"""

from __future__ import annotations

from beta_jax.llm.batch import BatchOutcome, RequestTimes, simulate_batch
from beta_jax.llm.capacity import (
    HighestRate,
    Limits,
    Point,
    fewest_engines,
    highest_rate,
    serve,
)
from beta_jax.llm.engine import Engine
from beta_jax.llm.exact import simulate
from beta_jax.llm.fit import LinearFit, fit_linear, random_steps, read_steps
from beta_jax.llm.lengths import LENGTHS, TokenLengths
from beta_jax.llm.linear import LinearStepTime
from beta_jax.llm.measured import Measured, read_measured
from beta_jax.llm.memory import estimate_num_blocks
from beta_jax.llm.outcome import Outcome
from beta_jax.llm.requests import (
    LLMError,
    Prefixes,
    TokenRequests,
    load_token_requests,
    save_token_requests,
)
from beta_jax.llm.run_files import load_engine, load_run, save_engine
from beta_jax.llm.shapes import StepShape
from beta_jax.llm.table_files import read_tables
from beta_jax.llm.tables import StepTables
from beta_jax.llm.timeline import write_timeline
from beta_jax.llm.traffic import (
    FittedTraffic,
    GeneratedTraffic,
    ReplayedTraffic,
    TokenTraffic,
    traffic_of,
)

__all__ = [
    "LENGTHS",
    "BatchOutcome",
    "Engine",
    "FittedTraffic",
    "GeneratedTraffic",
    "HighestRate",
    "LLMError",
    "Limits",
    "LinearFit",
    "LinearStepTime",
    "Measured",
    "Outcome",
    "Point",
    "Prefixes",
    "ReplayedTraffic",
    "RequestTimes",
    "StepShape",
    "StepTables",
    "TokenLengths",
    "TokenRequests",
    "TokenTraffic",
    "estimate_num_blocks",
    "fewest_engines",
    "fit_linear",
    "highest_rate",
    "load_engine",
    "load_run",
    "load_token_requests",
    "random_steps",
    "read_measured",
    "read_steps",
    "read_tables",
    "save_engine",
    "save_token_requests",
    "serve",
    "simulate",
    "simulate_batch",
    "traffic_of",
    "write_timeline",
]
