"""The folder that a run writes to: checked before the work, locked, cleaned, and explained."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.engine.fields import render, walk
from experiments.engine.files import ROOT, input_path, unfinished, write_json
from experiments.report import page

LOCK, RUN, TIMINGS, LOG = "lock", "run.json", "timings.json", "log.txt"
PACKAGES = ("jax", "jaxlib", "numpy", "matplotlib")


class OutputError(ValueError):
    """The output directory cannot be written to."""


def prepare(directory: Path) -> None:
    """Make the directory and prove that files can be written in it; raises OutputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to --out_dir {directory}: {error.strerror}") from None


def require_own(directory: Path, name: str) -> None:
    """Raise OutputError if the directory holds results of another config than `name`."""
    owner = name
    with contextlib.suppress(OSError, ValueError, KeyError):  # no run has ended here yet
        owner = json.loads((directory / RUN).read_text())["config_name"]
    if owner != name:
        raise OutputError(f"--out_dir {directory} holds results of {owner}, not of {name}")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other runs out of an existing directory; raises OutputError if one is at it.

    The lock goes with the process, however that ends; a lock file that stays behind locks nothing.
    """
    path = directory / LOCK
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            reason = error.strerror
            if isinstance(error, BlockingIOError):
                reason = "another run is writing there; wait for it, or give another --out_dir"
            raise OutputError(f"cannot lock {directory}: {reason}") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # the run that made the file deleted it just before it was locked
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def clean(directory: Path, name: str, files: Iterable[str]) -> str:
    """Delete what the config `name` wrote to a directory, and the directory if then empty.

    Returns what was done, in words; raises OutputError if the results there are another config's.
    """
    if not directory.is_dir():
        return f"{directory} is not there: nothing to delete"
    with locked(directory):
        require_own(directory, name)
        paths = [directory / file for file in (*files, RUN, TIMINGS, LOG, page.FILE)]
        found = [path for path in (*paths, *map(unfinished, paths)) if path.is_file()]
        for path in found:
            path.unlink()
    folders = {directory, *(path.parent for path in found)}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    names = (str(path.relative_to(directory)) for path in found)
    return f"deleted from {directory}: {', '.join(names) or 'nothing'}"


def write_provenance(directory: Path, name: str, argv: Sequence[str], config: Any) -> None:
    """Write what a reader needs to repeat a run: command, config as typed, versions, device."""
    write_json(directory / RUN, {"config_name": name} | _provenance(argv, config))


def _provenance(argv: Sequence[str], config: Any) -> dict[str, Any]:
    import jax

    from beta_jax.simulator import SIMULATOR_VERSION
    from beta_jax.simulator.engine import ran
    from beta_jax.traces import TraceError, fingerprint

    leaves = {leaf.name: render(leaf.value) for leaf in walk(config)}
    values = [leaf.value for leaf in walk(config)]
    lists = [value if isinstance(value, tuple) else (value,) for value in values]
    texts = [text for one in lists for text in one if isinstance(text, str) and text]
    files = {text: input_path(text) for text in texts if input_path(text).is_file()}
    folders = {}
    for text in texts:
        if input_path(text).is_dir():
            with contextlib.suppress(TraceError):  # a folder of something else
                folders[text] = fingerprint(input_path(text))
    return {
        "argv": list(argv),
        "config": leaves,
        "inputs_sha256": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
        }
        | folders,
        "simulator_version": SIMULATOR_VERSION,
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "git_revision": _git_revision(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "kernels": ran(),
    }


def _git_revision() -> str | None:
    """The commit of the source, `-dirty` if it was changed; None outside a git checkout."""
    options = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *options], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
