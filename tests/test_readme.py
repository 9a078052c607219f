"""README's scripts print what README says they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_scripts_print_what_it_says():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```.*?```\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    script, printed = map("".join, zip(*blocks, strict=True))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == printed
