"""What the pages of docs/ show is what happens, and the API reference has every public name."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

import beta_jax

import documents

PAGES = ("concepts", "faq", "traces")
BLOCK = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_scripts_of_a_page_print_what_it_says(page: str):
    text = (documents.ROOT / "docs" / f"{page}.md").read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") > 0
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), {})
        assert printed.getvalue() == expected


def test_the_reference_has_every_public_name():
    text = (documents.ROOT / "docs" / "api.md").read_text()
    shown = set(re.findall(r"^\.\. auto\w+:: (?:beta_jax\.)?([\w.]+)$", text, re.MULTILINE))
    shown = {name.rpartition(".")[2] for name in shown}
    named = set(re.findall(r"`beta_jax\.(\w+)`", text))
    assert shown | named >= {*beta_jax.__all__}, "add it to docs/api.md"


def test_every_page_can_be_reached():
    contents = (documents.ROOT / "docs" / "index.md").read_text()
    pages = {path.stem for path in (documents.ROOT / "docs").glob("*.md")} - {"index", "search"}
    listed = {line for line in contents.splitlines() if re.fullmatch(r"\w+", line)}
    assert listed == pages | {"configs", "searching"}, "list it in docs/index.md"
    notebooks = {path.stem for path in (documents.ROOT / "examples").glob("*.ipynb")}
    assert {*re.findall(r"^examples/(\w+)$", contents, re.MULTILINE)} == notebooks
