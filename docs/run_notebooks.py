"""Runs the notebooks of `examples/` in place, so that what they show is what happens.

    python docs/run_notebooks.py [examples/capacity.ipynb ...]

Needs what `make docs` needs. `tests/docs/test_notebooks.py` fails where stored text is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
METADATA = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def main(names: list[str]) -> None:
    for path in map(Path, names or sorted((ROOT / "examples").glob("*.ipynb"))):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, kernel_name="python3", record_timing=False).execute()
        notebook.metadata = nbformat.from_dict(METADATA)  # without versions, which would differ
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
