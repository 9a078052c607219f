"""Where the library keeps what it can make again: compiled programs, parsed traces, checksums."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/beta_jax`, or `~/.cache/beta_jax`; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "beta_jax"
