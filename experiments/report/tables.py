"""Tables: CSV files with the same bytes for the same numbers, and aligned text for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""A line of a table, by column."""
Columns = Mapping[str, Callable[[str], Any]]
"""What reads the text of each column, such as `float`."""
UNKNOWN = ("", "nan")
NUMBER = re.compile(r"-?(inf|\d+(\.\d*)?(e[-+]?\d+)?)", re.ASCII)


class ResultsError(ValueError):
    """A table that a figure is drawn from is missing or incomplete."""


def to_csv(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """The rows as CSV under the keys of the first; floats in full precision, newlines as `\\n`.

    columns: the keys, for tables that may have no rows.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read_csv(path: Path, columns: Columns) -> list[Row]:
    """The rows of a CSV. Raises ResultsError unless it has rows and these columns.

    Of columns beyond them the text is kept.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            present, rows = reader.fieldnames or [], list(reader)
    except FileNotFoundError:
        raise ResultsError(
            f"{path} is not there: nothing to plot; run without --plot_only"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path}: {error}") from None
    missing = [column for column in columns if column not in present]
    if missing or not rows:
        raise ResultsError(f"{path} has no {'column ' + ', '.join(missing) if missing else 'rows'}")
    try:
        return [row | {name: read(row[name]) for name, read in columns.items()} for row in rows]
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{path}: {error}") from None


def truth(text: str) -> bool:
    """Whether `to_csv` wrote this of True; what is not known, it writes as nothing."""
    return text == "True"


def to_text(rows: Sequence[Row]) -> str:
    """The rows as an aligned table; floats with four significant digits, NaN as `-`."""
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [not isinstance(value, str) for value in rows[0].values()]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return str(value)


def pivot(rows: Sequence[Row]) -> list[Row]:
    """The rows of one panel as a line per x and a column per policy, attainment in %.

    With its half interval, where rows have one; with its ends, where a share ends one early.
    """
    lines: dict[float, Row] = {}
    for row in rows:
        line = lines.setdefault(row["x"], {row["x_name"]: row["x"]})
        line[row["policy"]] = mean = 100 * row["slo_attainment"]
        low, high = 100 * row["slo_attainment_low"], 100 * row["slo_attainment_high"]
        if abs((high - mean) - (mean - low)) > 1e-9:
            line[row["policy"]] = f"{mean:.4g} ({low:.4g} to {high:.4g})"
        elif high == high:
            line[row["policy"]] = f"{mean:.4g} +-{high - mean:.2g}"
    return list(lines.values())


def read_values(path: Path) -> list[Row]:
    """The rows of any CSV: a column of nothing but numbers as such, what is not known as None.

    Raises ResultsError.
    """
    try:
        with open(path, newline="") as file:
            names, *lines = list(csv.reader(file)) or [[]]
        columns = [[*column] for column in zip(names, *lines, strict=True)]
    except (OSError, ValueError, csv.Error) as error:
        raise ResultsError(f"{path}: {error}") from None
    values = zip(*(_values(column) for _, *column in columns), strict=True)
    return [dict(zip(names, line, strict=True)) for line in values]


def _values(column: Sequence[str]) -> list[Any]:
    """Each cell of a column, by what they all are."""
    known = [text for text in column if text not in UNKNOWN]
    read: Callable[[str], Any] = str
    if all(text in ("True", "False") for text in known):
        read = truth
    elif all(NUMBER.fullmatch(text) for text in known):
        read = int if all(text.lstrip("-").isdecimal() for text in known) else float
    return [None if text in UNKNOWN else read(text) for text in column]
