"""What documents show, run as it stands there.

A block is fenced or, for shell commands, indented by four spaces. `walk` runs a page from top to
bottom: Python in one namespace, `run.py` in this process; a block of text is what was printed. A
block of CSV or JSON is a file, if the line before ends with its name. What is not run is listed in
`LEFT_OUT`, with the reason.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import beta_jax
import run as command_line_program
from experiments.cli import command_line

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("docs/configs.md", "docs/searching.md")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "data/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if str(path.relative_to(ROOT)) not in GENERATED
)
MINUTES = "takes minutes; tests of its own run it scaled down"
AFFORDABLE = {"--help", "evaluate", "fit_profile", "plan", "profile", "profile:smoke", "quickstart"}
"""Configs that pages may have run, as they take seconds."""
LEFT_OUT = {
    r"(README|CONTRIBUTING).md: make ": "what .ci/run does, or git's hooks",
    r"README.md: .* --config (sec\d|paper|llm|batching|selfcheck|sweep)": MINUTES,
    r"README.md: .* --config quickstart .*--config.start_from": MINUTES,
    r"README.md: .* --config (profile|fit_profile|plan)": "docs/profiling.md, docs/planning.md do",
    r"docs/(paper|llm).md: .*python run.py": MINUTES,
    r".*: .* --executor=ray": "needs a cluster: tests/experiments/engine/test_executor.py",
    r".*: .*(pip install|bin/ray start)": "changes the machine",
    r"docs/machines.md: .* benchmarks/gpu.py": "needs a GPU: tests/test_gpu_benchmark.py rehearses",
    r"docs/traces.md: .* fetch": "downloads: tests/traces/test_fetch.py has a server of its own",
    r"docs/(search|llm).md: ((result|outcome|requests, engine) = |llm\.)": "no such data",
    r"docs/llm.md: from .* load_trace": "no such data",
    r"data/README.md: [0-9a-f]{64} ": "checksums: tests/profiles/test_profiles.py compares them",
    r"data/.*: python -m": "writes what ships; tests compare its bytes",
    r"benchmarks/README.md: ": "records of what was measured",
}
"""Blocks that are not run, by "page: how it begins", and why. Those of run.py are still parsed."""


class Block(NamedTuple):
    """kind: of a fence, else "command", a line that continues over backslashes. before: the last
    line of text above it."""

    page: str
    kind: str
    text: str
    before: str

    @property
    def left_out(self) -> bool:
        return any(re.match(pattern, f"{self.page}: {self.text}") for pattern in LEFT_OUT)


def blocks(page: str) -> Iterator[Block]:
    """In order; without directives of Sphinx, which `make docs` reads."""
    lines = iter((ROOT / page).read_text().replace("\\\n", " ").splitlines())
    before, blank = "", True
    for line in lines:
        if line.startswith("```"):
            kind, body = line.removeprefix("```"), []
            while (line := next(lines)) != "```":
                body.append(line)
            if not kind.startswith("{"):
                yield Block(page, kind, "\n".join([*body, ""]), before)
            blank = True
        elif line.startswith("    ") and blank:
            yield Block(page, "command", line.strip(), before)
        else:
            blank = not line
            before = line or before


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


def walk(page: str, python: Callable[[str], None] | None = None) -> list[str]:
    """Run every block of a page in the current folder; what each one printed.

    python: is given the blocks of Python instead of running them. Fails at a block that does not
    work, prints something else than the page says, or is neither run nor left out.
    """
    names: dict[str, Any] = {"__name__": page}
    (Path.cwd() / "data").symlink_to(ROOT / "data")
    printed: list[str] = []
    left_out = False  # the block before, and so what it would have printed
    for block in blocks(page):
        where = f"{page}: {block.text}"
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if block.left_out:
                _parse(block)
            elif block.kind == "command":
                _command(block.text)
            elif block.kind == "python":
                python(block.text) if python else exec(compile(block.text, page, "exec"), names)
            elif block.kind in ("csv", "json"):
                _file(block)
            elif block.kind == "text":
                assert python or left_out or block.text in printed[-1], where
            else:
                raise AssertionError(f"neither run nor left out: {where}")
        left_out = block.left_out
        printed.append(output.getvalue())
    return printed


def _command(text: str) -> None:
    words = shlex.split(text, comments=True)
    environment = dict(word.split("=", 1) for word in words if re.match("[A-Z_]+=", word))
    python, program, *arguments = words[len(environment) :]
    known = python == ".venv/bin/python" and program == "run.py" and {*arguments} & AFFORDABLE
    assert known, f"neither run nor left out: {text}"
    if not environment:
        assert command_line_program.main([program, *arguments], time.perf_counter()) == 0, text
        return
    done = subprocess.run(
        [sys.executable, ROOT / program, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    print(done.stdout)


def _parse(block: Block) -> None:
    """Of what is left out the command line is right, at least."""
    words = shlex.split(block.text, comments=True) if block.kind == "command" else []
    if "run.py" in words and "--help" not in words:
        command_line.parse(words[words.index("run.py") :])


def _file(block: Block) -> None:
    if name := re.search(r"`(\w+\.(?:csv|json))`[.:]?$", block.before):
        Path(name[1]).write_text(block.text)
    path = Path(name[1] if name else "shown.json")
    if block.kind == "json":
        path.write_text(block.text)
        load = {
            "beta_jax.placement": beta_jax.load_placement,
            "beta_jax.profile": beta_jax.load_profile,
        }
        if format := json.loads(block.text).get("format"):
            load[format](path)
    else:
        assert name, f"which file is it? {block.before}"
