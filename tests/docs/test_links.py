"""No link of a document leads nowhere; `make linkcheck` looks at those to other sites."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import documents

NOTEBOOKS = [f"examples/{path.name}" for path in (documents.ROOT / "examples").glob("*.ipynb")]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|^    .*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def prose(path: Path) -> str:
    """The text without code."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return CODE.sub("", text)


def anchors(path: Path) -> Iterator[str]:
    """Of the headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", [*documents.PAGES, *NOTEBOOKS])
def test_links(name: str):
    page = documents.ROOT / name
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        made = str(target.relative_to(documents.ROOT)) in documents.GENERATED
        assert made or target.exists(), f"{name}: {link}"
        if anchor and not made:
            assert anchor in {*anchors(target)}, f"{name}: {link}"
