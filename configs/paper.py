"""The paper's artifact as a whole: every section of its page, and whether its claims hold here.

    python run.py --config paper                                        # on generated traces
    python run.py --config paper --config.maf1=DIR_OR_FILE --config.maf2=FILE    # on real ones
    python run.py --config paper --config.sections=large_models,ablation         # some of it
    python run.py --config paper --config.published=FOLDER              # and published points
    python run.py --config paper:smoke                                  # everything, scaled down

Takes some 35 minutes on 2 quiet CPU cores (estimated from those of its sections) and 3 GiB of
memory, 21 of them for the columns of S3, which --config.columns=S1@MAF1,S2@MAF1,S1@MAF2,S2@MAF2
leaves out. Expect 31 of 36 claims to agree with S1@MAF1 and S2@MAF1 alone, and the others in part:
docs/paper.md has the table as it was recorded, with the time and memory of each section.

Each section is a command of its own in a process of its own, which the run prints, and writes into
a folder of that name below --out_dir, with a report; report.html links to them all. Whatever ends a
run, the same command goes on from there: finished sections are not run again while their code and
inputs are the same, and one that was interrupted goes on from its last block.

`published` and `published_curves` need a folder with golden/ and data/ of results that the authors
published, which are not part of the project.

Sections are numbered as in the artifact: the paper itself has batching as 6.5, the ablation as 6.6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from configs import batching, sec3, sec6_2, sec6_3, sec6_4, sec6_5, selfcheck, trace_report
from experiments.engine.fields import render
from experiments.paper import artifact
from experiments.paper.artifact import Config, Section

OF_A_RUN = ("run.json", "timings.json", "log.txt", "report.html", "lock")
"""What a run writes besides the files of its experiment."""


def _section(name: str, module: Any, **others: Any) -> Section:
    config = module.__name__.rpartition(".")[2]
    smoke = "smoke" in getattr(module, "VARIANTS", {})
    files = (*module.EXPERIMENT.files, *OF_A_RUN)
    return Section(name=name, config=config, files=files, smoke=smoke, **others)


def _both(config: Config) -> Sequence[str]:
    given = config.maf1, config.maf2
    return [] if given == trace_report.CONFIG.trace else [f"--config.trace={','.join(given)}"]


def _each(config: Config) -> Sequence[str]:
    given = {name: getattr(config, name) for name in ("maf1", "maf2")}
    given["columns"] = ",".join(config.columns)
    return [
        f"--config.{name}={value}"
        for name, value in given.items()
        if value != render(getattr(sec6_2.CONFIG, name))
    ]


def _share(config: Config) -> float:
    """Of the time of all columns: those of S3 take 21 minutes of 26."""
    return sum(0.4 if name.startswith("S3") else 0.05 for name in config.columns)


def _maf1(config: Config) -> Sequence[str]:
    return [] if config.maf1 == sec6_4.CONFIG.trace else [f"--config.trace={config.maf1}"]


def _published(config: Config) -> Sequence[str]:
    return [str(config.published)]


SECTIONS = (
    _section(
        "environment",
        selfcheck,
        shows="that this installation simulates what has an exact answer",
        writes="selfcheck.csv, selfcheck.pdf",
        recorded_s=28,
    ),
    _section(
        "dataset",
        trace_report,
        shows="the traces MAF1 and MAF2",
        options=_both,
        writes="trace_report.csv, trace_report.pdf",
        recorded_s=5,
    ),
    _section(
        "profiling",
        sec3,
        shows="Table 1, figures 8 and 9: what models cost",
        options=lambda _: ["--config.groups=decomposition,partition,scaling"],
        writes="scaling.csv, decomposition.csv, partition.csv, model_parallel_*.pdf",
        recorded_s=4,
    ),
    _section(
        "end_to_end",
        sec6_2,
        shows="section 6.2, figure 11",
        options=_each,
        writes="headline.csv, table.csv, goodput_vs_*.pdf",
        published_time="1 h, and 5 h for S3, on a large machine",
        recorded_s=1560,
        share=_share,
    ),
    _section(
        "large_models",
        sec6_3,
        shows="section 6.3, figure 12",
        writes="table.csv, large_model_exp.pdf",
        published_time="5 s",
        recorded_s=4,
    ),
    _section(
        "robustness",
        sec6_4,
        shows="section 6.4, figure 13",
        options=_maf1,
        writes="headline.csv, table.csv, robustness.pdf",
        published_time="10 min",
        recorded_s=200,
    ),
    _section(
        "ablation",
        sec6_5,
        shows="section 6.5 (6.6 of the paper), figure 14",
        writes="table.csv, ablation.pdf",
        published_time="5 min on a large machine",
        recorded_s=38,
    ),
    _section(
        "motivation",
        sec3,
        shows="section 3, figures 2 and 4 to 10",
        writes="two_models.csv, memory.csv, rate.csv, cv.csv, slo.csv, theory.csv, a figure each",
        recorded_s=63,
    ),
    _section(
        "batching",
        batching,
        shows="section 6.5 of the paper: requests served together",
        writes="table.csv, batching.pdf",
        recorded_s=20,
    ),
    Section(
        name="published",
        shows="104 points that the authors published for synthetic traffic",
        config="benchmarks/published_points.py",
        options=_published,
        writes="table.csv",
        files=("table.csv",),
        recorded_s=76,
        needs="published",
    ),
    Section(
        name="published_curves",
        shows="figure 12, by the simulator that the authors published",
        config="benchmarks/published_curves.py",
        options=_published,
        writes="table.csv",
        files=("table.csv",),
        recorded_s=3,
        needs="published",
    ),
)

EXPERIMENT = artifact.task(SECTIONS)
CONFIG = Config(sections=tuple(section.name for section in SECTIONS), columns=sec6_2.CONFIG.columns)
VARIANTS = {"smoke": dataclasses.replace(CONFIG, smoke=True)}
