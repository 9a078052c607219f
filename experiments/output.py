"""The directory a run writes to: checked before the work, each file written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.config import render, walk

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jax", "jaxlib", "numpy", "matplotlib")


def input_path(path: str) -> Path:
    """A file named by the user; a shipped one (`data/...`) is found from any directory."""
    return Path(path) if Path(path).exists() or not (ROOT / path).exists() else ROOT / path


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


def write(path: Path, content: str | bytes) -> None:
    """Replace the file at once, so that a reader or an interruption never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def provenance(argv: Sequence[str], config: Any) -> dict[str, Any]:
    """What a reader needs to repeat a run: command, config as typed, versions, device."""
    import jax

    from beta_jax.simulator import SIMULATOR_VERSION

    leaves = {leaf.name: render(leaf.value) for leaf in walk(config)}
    texts = [leaf.value for leaf in walk(config) if isinstance(leaf.value, str)]
    files = {text: input_path(text) for text in texts if input_path(text).is_file()}
    return {
        "argv": list(argv),
        "config": leaves,
        "inputs_sha256": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
        },
        "simulator_version": SIMULATOR_VERSION,
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "git_revision": _git_revision(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
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
