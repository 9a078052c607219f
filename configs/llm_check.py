"""Compare a simulated LLM engine with a real one: TTFT, TPOT and end to end of recorded requests.

    python run.py --config llm_check --config.run=FOLDER
    python run.py --config llm_check --config.run=FOLDER --config.engine=engine.json

The folder has requests.csv (arrival, prompt and answer tokens), measured.csv (when the real engine
queued, scheduled and answered each), and the tables of its kernel times; or an engine with
coefficients is given instead. `docs/llm.md` describes the files.

Expect tables of errors of the means and of quantiles, a row for each quantity and model: the
tables, the linear model fitted to them, and the tables without prefix reuse. One is of all
requests, others are of those whose measured TTFT is below --config.ttft_limit_s and of the rest: an
overloaded run tells of its queue, and little of rates that the engine stands. It ends in what
follows for your run. docs/llm.md says what came out for published ones.

table.csv has the errors, compared.csv every request; the figure shows how far
off quantiles are. Takes seconds for some hundred requests.
"""

from __future__ import annotations

from experiments.tools import llm_check

EXPERIMENT = llm_check.TASK
CONFIG = llm_check.Config(run="measured_run")
