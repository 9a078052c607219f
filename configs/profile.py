"""Measure the stages of your models on this machine: a profile for quickstart and everything else.

    python run.py --config profile --config.models=bert-1.3b,moe-2.4b --config.ops=1,2 \\
        --config.pps=1,2,4 --config.batches=1,2,4,8,16
    python run.py --config quickstart --config.profile=results/profile/profile.json \\
        --config.model_types=bert-1.3b

Takes some fifty runs of the whole model for each type, batch size and entry of pps. Expect
profile.json, whose pipelines are balanced by measured latencies, profile_even.json, with equally
many blocks to a stage, and stages.csv, which has both, with quartiles. What does not fit a device's
memory is told in a line each, and left out of the profiles. Stages run one after another, so one
device is enough for any number of them; operator parallelism needs as many as its degree.

A model of your own, on a laptop:

    python run.py --config profile --config.models=mine --config.architecture.block=llama \\
        --config.architecture.layers=8 --config.architecture.hidden=256 --config.pps=1,2,4
    python run.py --config quickstart --config.profile=results/profile/profile.json \\
        --config.model_types=mine --config.memory_gib=8 --config.rules.stage_overhead=0 \\
        --config.rules.request_overhead_s=0.002

The two overheads are those of your server; the published ones, which are the defaults, are longer
than a small model takes.

docs/profiling.md tells from a bare machine to a profile, and what is not measured.
"""

from __future__ import annotations

from experiments.tools import measuring

EXPERIMENT = measuring.TASK
CONFIG = measuring.Config(models=("bert-1.3b",), pps=(1, 2, 4), batches=(1, 2, 4, 8, 16))

VARIANTS = {
    "smoke": measuring.Config(models=("tiny",), pps=(1, 2), batches=(1, 2), repeats=3),
}
