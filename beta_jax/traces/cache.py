"""Parsed traces on disk, found by the checksum of the file that they were parsed from.

An entry is a folder of `.npy` files, which are mapped rather than read, so that a large trace opens
at once. Checksums are remembered by path, size and time of change. Entries are written whole or not
at all, and one that cannot be read is made again.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray]


def cached(
    path: Path,
    label: str,
    parse: Callable[[Path], Arrays],
    folder: Path | None,
    made_by: Callable[..., Any] | None = None,
) -> Arrays:
    """`parse(path)`, or what it returned before for the same content, label and code.

    made_by: what `parse` leaves to a function of another module. folder: where entries are kept;
    None parses anew. A folder that cannot be written to is no error: the trace is then just parsed
    each time.
    """
    if folder is None:
        return parse(path)
    code = _code({inspect.getsourcefile(function) for function in (parse, made_by or parse)})
    entry = folder / "traces" / f"{label}-{code}-{file_checksum(path, folder)}"
    try:
        if entry.is_dir():
            return {file.stem: np.load(file, mmap_mode="r") for file in sorted(entry.glob("*.npy"))}
    except (OSError, ValueError):
        shutil.rmtree(entry, ignore_errors=True)
    arrays = parse(path)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, ignore_cleanup_errors=True) as draft:
            for name, array in arrays.items():
                np.save(Path(draft) / f"{name}.npy", array)
            os.rename(draft, entry)
    except OSError:
        pass
    return arrays


def _code(sources: set[str | None]) -> str:
    """A hash of the code that parses: files of these modules, and what they read tables with."""
    paths = {str(Path(__file__).with_name("tables.py")), *filter(None, sources)}
    return hashlib.sha256("".join(checksum(Path(p)) for p in sorted(paths)).encode()).hexdigest()[
        :16
    ]


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_checksum(path: Path, folder: Path) -> str:
    """SHA-256 of a file, remembered in the folder until the file changes."""
    state = path.stat()
    stamp = repr((str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino))
    note = folder / "checksums" / hashlib.sha256(stamp.encode()).hexdigest()
    try:
        return note.read_text()
    except OSError:
        digest = checksum(path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(digest)
    except OSError:
        pass
    return digest
