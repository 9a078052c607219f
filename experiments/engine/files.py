"""Files: those that the user names, and those that are written, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NO_NAME = "the name of a file or folder is empty"


def input_path(path: str) -> Path:
    """A file named by the user; a shipped one (`data/...`) is found from any directory.

    Raises ValueError for no name.
    """
    if not path:
        raise ValueError(NO_NAME)
    # Not `Path.exists`, which raises for a name that is too long.
    found = os.path.exists(path) or not os.path.exists(ROOT / path)
    return Path(path) if found else ROOT / path


def read_rows(path: Path) -> list[Any]:
    """The rows of a CSV with a header, or of a JSON list. Raises ValueError naming the file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    return rows if isinstance(rows, list) else []


def write(path: Path, content: str | bytes) -> None:
    """Replace the file at once, so that a reader or an interruption never sees half of it."""
    temporary = unfinished(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(path.name + ".tmp")


def sync_directory(directory: Path) -> None:
    """Have the disk know which files are in the directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
