"""How the documentation is built: `make docs`, which fails on any warning.

Pages are Markdown and read well on their own. Two parts are made here from the source: what
every config does (`configs.md`), and the API reference, from docstrings as they stand. The
notebooks of `examples/` are pages with the outputs that are stored in them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beta_jax import __version__  # noqa: E402
from experiments.cli import configs  # noqa: E402
from experiments.engine.fields import describe, render, walk  # noqa: E402

project, author, release = "beta_jax", "the beta_jax developers", __version__
copyright = "the beta_jax developers, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
nb_execution_mode = "off"  # outputs are stored: docs/run_notebooks.py
exclude_patterns = ["_build", "search.md"]  # that is `searching` here: Sphinx has a `search`
html_theme, html_title = "furo", f"beta_jax {__version__}"
myst_heading_anchors = 4  # so that pages can link to sections
myst_enable_extensions = ["dollarmath"]
default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
suppress_warnings = ["misc.highlighting_failure"]  # of blocks of CSV, for which there is no lexer

FIELD = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.*)")


def configs_page() -> str:
    """Every config: its docstring, and its fields with their defaults."""
    parts = [
        "# Configs\n\nWhat `python run.py --config NAME` can run, as `--help` shows it. A field is "
        "set by `--config.FIELD=VALUE`, lists by commas; `NAME:VARIANT` are other defaults.\n"
    ]
    for name in configs.summaries():
        loaded = configs.load(name)
        rows = [
            f"| `{leaf.name}` | `{render(leaf.value) or ' '}` | {describe(leaf.annotation)} "
            f"| {leaf.help} |".replace("|...", "...")
            for leaf in walk(loaded.default)
        ]
        head = ["| field | default | type | |", "|---|---|---|---|"]
        table = "\n".join([*head, *map(_escape, rows)])
        variants = ", ".join(f"`{name}:{variant}`" for variant in loaded.variants)
        parts.append(
            f"## {name}\n\n{loaded.doc}\n" + (f"\nVariants: {variants}.\n" if variants else "")
        )
        parts.append(table)
    return "\n".join(parts) + "\n"


def _escape(row: str) -> str:
    """A row of a table whose cells may hold `a|b`."""
    cells = re.split(r"(?<= )\|(?= )|^\||\|$", row)
    return "|".join(cell.replace("|", "\\|") for cell in cells)


def to_rst(lines: Sequence[str]) -> Iterator[str]:
    """A docstring as reStructuredText: its list of `name: what it is` becomes one."""
    within = False
    for line in lines:
        if found := FIELD.match(line):
            if not within:
                yield ""
            within = True
            names = ", ".join(f"**{name}**" for name in found["names"].split(", "))
            yield f"* {names}: {found['text']}"
        elif within and line.strip():
            yield f"  {line.strip()}"
        else:
            within = False
            yield line


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [*to_rst(lines)]


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Fields of named tuples, of which Python says no more than their number."""
    return skip or (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")


def _read(*event: Any) -> None:
    text = event[-1]
    text[0] = re.sub(r"\]\(([./]*(?:docs/)?)search\.md", r"](\1searching.md", text[0])
    text[0] = text[0].replace("](../examples/", "](examples/")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    app.connect("source-read", _read)
    app.connect("include-read", _read)
    docs = ROOT / "docs"
    (docs / "configs.md").write_text(configs_page())
    (docs / "searching.md").write_text((docs / "search.md").read_text())
    (docs / "examples").mkdir(exist_ok=True)
    for notebook in (ROOT / "examples").glob("*.ipynb"):
        text = notebook.read_text().replace("](../docs/", "](../")
        (docs / "examples" / notebook.name).write_text(text)
