"""Files in the Trace Event Format, JSON: https://ui.perfetto.dev and chrome://tracing open them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def write_events(path: str | os.PathLike[str], events: Iterable[Event]) -> None:
    """Write at least one event, all or nothing."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    lines = map(json.dumps, events)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            file.write(next(lines))
            file.writelines(f",\n{line}" for line in lines)
            file.write("\n]}\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
