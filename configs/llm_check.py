"""Compare a simulated LLM engine with a real one: TTFT, TPOT and end to end of recorded requests.

    python run.py --config llm_check --config.run=FOLDER
    python run.py --config llm_check --config.run=FOLDER --config.engine=engine.json

The folder has requests.csv (arrival, prompt and answer tokens), measured.csv (when the real engine
queued, scheduled and answered each), and the tables of its kernel times; or an engine with
coefficients is given instead. `docs/llm.md` describes the files.

Expect a table of errors of the means and of quantiles, a row for each quantity and model: the
tables, the linear model fitted to them, and the tables without prefix reuse. On a published run of
an RTX 4090 with Llama 3.1 8B the tables were +0.6 % (TTFT), +0.2 % (TPOT) and +0.5 % (end to end)
off. table.csv has the errors, compared.csv every request; the figure shows the distributions.
Takes seconds for some hundred requests.
"""

from __future__ import annotations

from experiments.tools import llm_check

EXPERIMENT = llm_check.TASK
CONFIG = llm_check.Config(run="measured_run")
