"""The report of a run: one page with its figures, tables and circumstances, for any browser.

It needs no network and no other file; links lead to the files beside it. All text is escaped, and
the page forbids the browser to load anything.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.report import tables
from experiments.report.tables import Row

FILE = "report.html"
TEMPLATE = "page.html.jinja"
MAX_ROWS, MAX_CELLS = 300, 6_000
"""Of a table that is shown; the rest is in its file."""
BROAD_PT = 400
"""Of a figure that a telephone shows a part of, so that its letters can be read."""
MAX_FIGURE_BYTES, MAX_FIGURES_BYTES = 600_000, 2_000_000
"""Of a vector figure, or else its raster image is shown; of all that are."""
UNKNOWN = "\N{EN DASH}"
FOLDED_FROM = 8
"""Columns from which on those that say the same in every row stand below the table."""
TITLES = {
    "answers.csv": "The answers",
    "certificates.csv": "What no placement exceeds on the training requests",
    "changes.csv": "What changes from one placement to another",
    "claims.csv": "What is claimed, and whether it agrees",
    "compared.csv": "Every request, measured and simulated",
    "differences.csv": "Differences between policies, paired by traffic",
    "errors.csv": "Model against measured rows",
    "groups.csv": "Groups of devices",
    "headline.csv": "By what factor Beta sustains more",
    "history.csv": "How searches went on",
    "intervals.csv": "Means and their 95 % intervals",
    "latencies.csv": "Requests answered within a latency",
    "misses.csv": "Why requests missed their SLO",
    "models.csv": "Models",
    "plan.csv": "Everything that was tried",
    "predictions.csv": "Predicted configurations and batch sizes",
    "sections.csv": "Sections, and what they took",
    "summary.csv": "Placements",
    "table.csv": "Every point and replication",
    "utilisation.csv": "How busy every group was",
}
"""Of tables whose name says too little."""
TITLES_WITH = {
    ("errors.csv", "steps"): "Model against measured steps",
    ("table.csv", "measured_mean_s"): "Means, measured and simulated, and how far apart they are",
}
"""Of those that are something else where they have a column."""
WITHOUT_INTERVALS = {
    "intervals.csv": "Means",
    "differences.csv": "Differences between policies, of one traffic",
}
"""Of those that lack what they are about where there is one replication: they come last."""


class Setting(NamedTuple):
    """A field of the config: `default` is what its file says, None if nothing else was asked."""

    name: str
    value: str
    default: str | None
    meaning: str

    @property
    def is_default(self) -> bool:
        return self.default is None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a folder tells of the run that wrote it.

    about: what its config is for, one line. files: names of those that are there, figures apart.
    figures: stems of those that belong to the run. environment: versions, devices, checksums; empty
    if no run has ended there. timings_s: parts of the run. printed: what it said.
    """

    name: str
    about: str
    directory: Path
    files: Sequence[str]
    figures: Sequence[str]
    command: str
    settings: Sequence[Setting]
    environment: Mapping[str, Any]
    timings_s: Mapping[str, float]
    printed: str

    @property
    def warnings(self) -> list[str]:
        """Each once."""
        start = "warning: "
        lines = self.printed.splitlines()
        found = (line.removeprefix(start) for line in lines if line.startswith(start))
        return list(dict.fromkeys(found))

    @property
    def tables(self) -> dict[str, list[Row]]:
        """By file, those in folders of its parts apart; raises ResultsError."""
        names = (name for name in self.files if name.endswith(".csv") and "/" not in name)
        return {name: tables.read_values(self.directory / name) for name in names}


class Shown(NamedTuple):
    """A table on the page. same: columns that say one thing in every row, and what."""

    file: str
    title: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[Any]]
    num_rows: int
    same: Mapping[str, Any]


class Picture(NamedTuple):
    """A figure: `uri` has all of it, None for one too large. broad: beyond a telephone."""

    stem: str
    uri: str | None
    broad: bool


def render(run: Run) -> str:
    """The page. Raises ResultsError, OSError."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "exact": exact, "plain": plain}
    found = {name: rows for name, rows in run.tables.items() if rows}
    last = {name for name, rows in found.items() if _lacks_intervals(name, rows)}
    shown = [show(name, rows) for name, rows in found.items()]
    return environment.get_template(TEMPLATE).render(
        run=run,
        tables=sorted(shown, key=lambda t: (t.file in last, len(t.columns) * t.num_rows)),
        figures=_pictures(run.directory, run.figures),
        total_s=sum(run.timings_s.values()),
    )


def show(file: str, rows: Sequence[Row]) -> Shown:
    """As much of a table as a page can bear."""
    columns = list(rows[0])
    same: dict[str, Any] = {}
    if len(rows) > 1 and len(columns) > FOLDED_FROM:
        first = rows[0]
        same = {c: first[c] for c in columns if all(row[c] == first[c] for row in rows)}
        columns = [column for column in columns if column not in same]
    most = min(MAX_ROWS, max(MAX_CELLS // max(len(columns), 1), 1))
    numeric = [
        {type(row[column]) for row in rows} <= {int, float, type(None)}
        and any(row[column] is not None for row in rows)
        for column in columns
    ]
    cells = [[row[column] for column in columns] for row in rows[:most]]
    return Shown(file, _title(file, rows), columns, numeric, cells, len(rows), same)


def _title(file: str, rows: Sequence[Row]) -> str:
    if _lacks_intervals(file, rows):
        return WITHOUT_INTERVALS[file]
    for (name, column), title in TITLES_WITH.items():
        if name == file and column in rows[0]:
            return title
    return TITLES.get(file, Path(file).stem.replace("_", " ").capitalize())


def _lacks_intervals(file: str, rows: Sequence[Row]) -> bool:
    return file in WITHOUT_INTERVALS and all(row.get("seeds") == 1 for row in rows)


def cell(value: Any) -> str:
    """A number to five digits, as it is read; what is not known as a dash."""
    if value is None:
        return UNKNOWN
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.5g}"


def exact(value: Any) -> str | None:
    """The whole number where `cell` rounds it."""
    rounded = isinstance(value, float) and float(cell(value)) != value
    return repr(value) if rounded else None


def plain(value: Any) -> str:
    """A value of the record of a run in words."""
    if value in ({}, [], ""):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(of)}" for name, of in value.items())
    if isinstance(value, list):
        return "; ".join(map(plain, value))
    return "unknown" if value is None else str(value)


def _pictures(directory: Path, stems: Sequence[str]) -> list[Picture]:
    pictures = []
    left = MAX_FIGURES_BYTES
    for stem in stems:
        uri = None
        for kind, media in (("svg", "svg+xml"), ("png", "png")):
            content = (directory / f"{stem}.{kind}").read_bytes()
            if len(content) <= min(left, MAX_FIGURE_BYTES):
                left -= len(content)
                uri = f"data:image/{media};base64,{base64.b64encode(content).decode()}"
                break
        pictures.append(Picture(stem, uri, _width_pt(directory / f"{stem}.svg") > BROAD_PT))
    return pictures


def _width_pt(svg: Path) -> float:
    with open(svg, encoding="utf-8") as file:
        found = re.search(r'<svg[^>]* width="([\d.]+)pt"', file.read(2000))
    return float(found[1]) if found else math.inf
