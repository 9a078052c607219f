"""Fit the cost model to a measured profile, and predict every configuration and batch size.

    python run.py --config fit_profile              # to what `--config profile` measured
    python run.py --config fit_profile --config.rows=FILE --config.device_gib=24 \\
        --config.sequence=1024 --config.others=bert-103.5b
    python run.py --config quickstart --config.profile=results/fit_profile/profile.json

Takes 10 s on 2 CPU cores, most of it to compile. Five rows are enough to begin with, of any types
that `beta_jax/profiles/architectures.py` knows, or of one of your own (--config.own_type=NAME
--config.architecture.hidden=...).

Expect a table of errors per type; the rows that contradict the rest, which are named and do not
bend the fit; the fitted numbers with their standard errors (`assumed`: the rows do not tell them);
and how many predictions lie outside of what was measured. errors.csv, rows.csv, numbers.csv and
predictions.csv have them in full, the latter with a standard error for each and what it goes beyond
(`op 8 > 4`, `type not measured`). profile.json is a profile for everything else, cost_model.json
what it was made of: `python -m beta_jax.profiles.cost_model cost_model.json --out FILE` makes it
again.

Figures, of --config.model_type where they are of one type: the model against what was measured, the
overheads of both kinds of parallelism (figure 8 of the paper), latency, throughput and memory
(figure 9), and pipelines cut evenly against balanced ones.

The cost models that ship with the project were fitted so, V100 and RTX 3090 in this order:

    python run.py --config fit_profile --config.rows=rtx3090_measured.json --config.device_gib=24 \\
        --config.sequence=1024
    python run.py --config fit_profile --config.rows=v100_measured.json --config.device_gib=16 \\
        --config.launches_from=rtx3090 --config.others=bert-15b --config.known=bert-103.5b:16:4.6
"""

from __future__ import annotations

from experiments.tools import fit_profile

EXPERIMENT = fit_profile.TASK
CONFIG = fit_profile.Config(rows="results/profile/profile.json")
