"""What a run came to, from the files in its folder: for the report, and for a program."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import configs, folder
from experiments.cli.command_line import Command
from experiments.engine.fields import describe, render, walk
from experiments.report import figures, page
from experiments.report.tables import ResultsError

MAX_ROWS = 100
"""Of a table that `machine_readable` has as a whole."""
PROGRESS = re.compile(r"\d+ results to (compute|go)\b|nothing to compute: ")
RECORDED = ("config_name", "argv", "config")
"""Parts of `run.json` that say what was asked; all others say where it ran."""


def read(command: Command, drawn: Sequence[Path]) -> page.Run:
    """What the folder tells of its last run; drawn: the files of its figures.

    Raises ResultsError for files that are not as a run writes them, OSError.
    """
    directory = command.out_dir
    record, timings = (_read_json(directory / name) for name in (folder.RUN, folder.TIMINGS))
    log = directory / folder.LOG
    pictures = {path.name for path in drawn}
    own = (*command.experiment.files, folder.RUN, folder.TIMINGS, folder.LOG)
    config = record.get("config", {})
    defaults = {leaf.name: leaf for leaf in walk(configs.load(command.name).default)}
    settings = []
    for name, value in config.items():
        meaning, default = "", None
        if leaf := defaults.get(name):
            meaning = "; ".join(filter(None, (describe(leaf.annotation), leaf.help)))
            default = render(leaf.value) if render(leaf.value) != value else None
        settings.append(page.Setting(name.removeprefix("config."), value, default, meaning))
    return page.Run(
        name=command.name,
        about=configs.summaries()[command.name],
        directory=directory,
        files=[name for name in _found(directory, own) if name not in pictures],
        figures=[path.stem for path in drawn if path.suffix == ".svg"],
        command=shlex.join(["python", *record["argv"]]) if "argv" in record else "",
        settings=settings,
        environment={name: of for name, of in record.items() if name not in RECORDED},
        timings_s=timings,
        printed=_results(log.read_text()) if log.is_file() else "",
    )


def _found(directory: Path, patterns: Sequence[str]) -> list[str]:
    """Files that are there, in the order of the patterns, in folders of their own, too."""
    paths = (path for pattern in patterns for path in sorted(directory.glob(pattern)))
    return [path.relative_to(directory).as_posix() for path in paths if path.is_file()]


def _results(printed: str) -> str:
    """What a run printed, without the lines on how far it was."""
    lines = (line for line in printed.splitlines() if not PROGRESS.match(line))
    return "\n".join(lines).strip("\n")


def machine_readable(run: page.Run) -> str:
    """The same as one JSON object: docs/files.md says what is in it. Raises ResultsError."""
    tables = {
        name: {
            "num_rows": len(rows),
            "columns": list(rows[0]) if rows else [],
            "rows": [_finite(row) for row in rows] if len(rows) <= MAX_ROWS else None,
        }
        for name, rows in run.tables.items()
    }
    drawn = figures.files_of(*run.figures)
    value = {
        "config_name": run.name,
        "config": {setting.name: setting.value for setting in run.settings},
        "directory": str(run.directory),
        "files": sorted([*run.files, *drawn, page.FILE]),
        "tables": tables,
        "warnings": run.warnings,
        "timings_s": dict(run.timings_s),
        "environment": dict(run.environment),
    }
    return json.dumps(value, indent=1, allow_nan=False)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the text `inf`, as in placements."""
    infinite = {n for n, value in row.items() if isinstance(value, float) and math.isinf(value)}
    return {name: str(value) if name in infinite else value for name, value in row.items()}


def _read_json(path: Path) -> dict[str, Any]:
    """Empty if the file is not there."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ResultsError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise ResultsError(f"{path}: expected an object")
    return value
