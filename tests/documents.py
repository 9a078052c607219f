"""The code in documents, run as it stands there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def code_below(page: str, heading: str) -> str:
    """The first block of Python below a heading of a page."""
    text = (ROOT / page).read_text()
    _, _, below = text.partition(f"\n## {heading}\n")
    found = re.search(r"```python\n(.*?)```", below, re.DOTALL)
    assert found, f"{page} has no code below {heading!r}"
    return found[1]


def run(page: str, heading: str) -> dict[str, Any]:
    """The names that the block defines, once it has run as a module."""
    name = re.sub(r"\W", "_", f"{page}_{heading}")
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(code_below(page, heading), f"{page}: {heading}", "exec"), module.__dict__)
    return vars(module)
