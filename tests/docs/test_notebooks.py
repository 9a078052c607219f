"""The notebooks of `examples/` print what is stored in them, and draw where a figure is stored."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import documents

NOTEBOOKS = sorted((documents.ROOT / "examples").glob("*.ipynb"))
MOST_BYTES = 200_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_happens(path: Path, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Cell by cell, in order, without a Jupyter kernel; figures are counted, not compared."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with plt.rc_context({"backend": "agg"}):
        for number, cell in enumerate(code_cells(path), 1):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), monkeypatch.context() as patch:
                patch.setattr(plt, "show", lambda: None)
                exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
            assert printed.getvalue() == stored_text(cell), (
                f"{path.name}, cell {number}: run docs/run_notebooks.py"
            )
            assert len(plt.get_fignums()) == stored_figures(cell)
            plt.close("all")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_and_small(path: Path):
    assert path.stat().st_size < MOST_BYTES
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert sum(map(stored_figures, cells)), "no figure"


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def stored_text(cell: dict[str, Any]) -> str:
    return "".join("".join(output.get("text", ())) for output in cell["outputs"])


def stored_figures(cell: dict[str, Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])
