"""Stored results are believed while the code that made them is the same, and no longer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.engine import keys
from experiments.engine.fingerprint import SOURCE, closure, code

DECIDES_NO_RESULT = {
    *("beta_jax.analysis.misses", "beta_jax.analysis.statistics", "beta_jax.analysis.timeline"),
    "beta_jax.analysis.trace_events",
    *(
        "beta_jax.placement.changes",
        "beta_jax.placement.files",
        "beta_jax.planning",
        "beta_jax.planning.choice",
    ),
    *("beta_jax.planning.boundary", "beta_jax.planning.outages"),
    "beta_jax.planning.questions",
    *("beta_jax.planning.traffic", "beta_jax.planning.trials"),
    *("beta_jax.profiles.architectures", "beta_jax.profiles.cost_model"),
    *("beta_jax.profiles.calibration", "beta_jax.profiles.prefill"),
    *("beta_jax.profiles.stages", "beta_jax.profiles.measure"),
    *(f"beta_jax.profiles.measure.{name}" for name in ("measuring", "model", "results")),
    "beta_jax.profiles.measure.transformer",
    *("beta_jax.theory", "beta_jax.theory.placements", "beta_jax.theory.queueing"),
    *("beta_jax.theory.systems", "beta_jax.queueing"),
    *("beta_jax.traces.__main__", "beta_jax.traces.fetch"),
}
"""Modules of the library that no stored result depends on. A new module is asked about below."""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of the source."""
    for name in ("beta_jax", "experiments", "configs"):
        shutil.copytree(
            SOURCE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def write(source: Path, modules: dict[str, str]) -> Path:
    for module, text in modules.items():
        path = source / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return source


def file(source: Path, module: str) -> Path:
    path = source.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_every_module_counts_by_what_it_does_not_by_what_it_says(source):
    modules = closure(keys.ROOTS, source)
    for module in modules:
        with file(source, module).open("a") as text:
            text.write("\n_ADDED = 1\n")
    before = code(keys.ROOTS, source)
    for module in modules:
        path = file(source, module)
        text = path.read_text()
        assert text.startswith('"""')
        path.write_text(text.replace('"""', '"""In other words: ', 1) + "\n\n# A comment.\n")
        assert code(keys.ROOTS, source) == before, module
        path.write_text(text.replace("_ADDED = 1", "_ADDED = 2"))
        assert code(keys.ROOTS, source) != before, module
        path.write_text(text)
    assert code(keys.ROOTS, source) == before


def test_every_module_of_the_library_counts_or_is_known_not_to():
    found = closure(keys.ROOTS)
    library = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in (SOURCE / "beta_jax").rglob("*.py")
    }
    # The room of language models has keys of its own (`experiments/tools/llm`).
    others = {name for name in library if not name.startswith("beta_jax.llm")}
    assert others - found.keys() == DECIDES_NO_RESULT
    assert {*keys.ROOTS, "experiments.engine.scenarios"} <= found.keys()


def test_imports_that_cannot_be_seen_are_known_as_exports(source):
    for module in closure(keys.ROOTS, source):
        text = file(source, module).read_text()
        if re.search(r"import_module|__import__|exec\(", text):
            assert module in ("beta_jax", "experiments") and "if TYPE_CHECKING:" in text


@pytest.mark.parametrize(
    "statement",
    [
        "import new",
        "import new as other",
        "import package.new",
        "from package import new",
        "from package.new import anything",
        "from package.new import *",
        "from .new import anything",
        "from . import new",
        "from ..package import new",
        "from package import exported",
        "from package import renamed as again",
        "import package\npackage.exported()",
        "import package as p\np.exported",
        "def function():\n    from package import new",
        "class Class:\n    def method(self):\n        import package.new",
        "try:\n    import package.new\nexcept ImportError:\n    pass",
        "if not TYPE_CHECKING:\n    import package.new",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import package.new",
    ],
)
def test_a_module_counts_from_the_moment_it_is_imported(statement, tmp_path):
    exports = "if TYPE_CHECKING:\n    from package.new import exported, anything as renamed\n"
    source = write(tmp_path, {"package.root": "x = 1", "package.__init__": exports})
    write(source, {"package.new": "value = 1", "new": "value = 1"})
    before = code(["package.root"], source)
    write(source, {"package.root": f"x = 1\n{statement}"})
    imported = code(["package.root"], source)
    assert imported != before
    write(source, {"package.new": "value = 2", "new": "value = 2"})
    assert code(["package.root"], source) not in (imported, before)


@pytest.mark.parametrize(
    "statement",
    [
        "import numpy, new.nothing",
        "import package",
        "from package import other",
        "import package\npackage.other, package.__name__",
        "if TYPE_CHECKING:\n    from package import new",
        "if typing.TYPE_CHECKING:\n    import package.new",
        "'import package.new'",
    ],
)
def test_a_module_does_not_count_that_is_not_imported(statement, tmp_path):
    exports = "if TYPE_CHECKING:\n    from package.new import exported\n"
    source = write(tmp_path, {"package.root": statement, "package.__init__": exports})
    write(source, {"package.new": "value = 1", "package.other": ""})
    assert "package.new" not in closure(["package.root"], source)


WORDS = '''"""A module."""
# A comment
import a.b
x: int = 1  # another
"""About x."""
class C:
    """A class."""
    def f(self, y=f"{'a'!r:>{3}}", *, z=None):
        "A function."
        return {**y, "k": [z, 1.5, 2j, b"b", ...]}
'''
DIGEST = "d2a63873c8de93de5a1af4f7b1d0b86ada335266cf2e02b0ec22ec0bec886dbb"


def test_layout_and_words_do_not_count_on_any_python(tmp_path):
    source = write(tmp_path, {"root": WORDS})
    found = closure(["root"], source)
    bare = re.sub(r'^ *"+A.*\n|#.*|"""About.*', "", WORDS, flags=re.MULTILINE)
    assert "A " not in bare and "About" not in bare
    write(source, {"root": "\n\n" + bare.replace("f(self, ", "f(\n        self,\n        ")})
    assert closure(["root"], source) == found
    # Python 3.11, 3.12 and 3.13 agree on it.
    assert found == {"root": DIGEST}


@pytest.mark.parametrize("change", [("=None", "=0"), ("=1", "=True"), (">{3}", "<{3}"), ("y,", "")])
def test_whatever_is_not_words_counts(change, tmp_path):
    text = "def f(y, z=None): return f'{y:>{3}}'\nf(y=1)"
    before = code(["root"], write(tmp_path, {"root": text}))
    assert change[0] in text
    assert code(["root"], write(tmp_path, {"root": text.replace(*change, 1)})) != before


RELATIVE = "from .part import x"


def test_what_is_remembered_of_a_text_is_no_other_packages(tmp_path):
    source = write(tmp_path, {"a.root": RELATIVE, "a.part": "x = 1"})
    assert "a.part" in closure(["a.root"], source)
    write(source, {"b.root": RELATIVE, "b.part": "x = 1"})
    assert set(closure(["b.root"], source)) == {"b", "b.root", "b.part"}


def test_a_root_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no module experiments\.gone in"):
        code(["experiments.gone"], tmp_path)


def test_what_is_read_is_not_imported():
    script = (
        "import sys; from experiments.engine.fingerprint import code; "
        f"code({keys.ROOTS}); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SOURCE, capture_output=True, text=True, check=True
    )
    imported = {name for name in done.stdout.split() if name.startswith(("beta_jax", "exp", "jax"))}
    assert imported == {
        *("beta_jax", "beta_jax.cache_folder"),
        *("experiments", "experiments.engine", "experiments.engine.fingerprint"),
    }


@pytest.mark.slow
def test_a_table_is_of_the_code_that_is_there(source):
    shutil.copy(SOURCE / "run.py", source)
    shutil.copytree(SOURCE / "data/profiles", source / "data/profiles")

    def run() -> tuple[bytes, int]:
        command = [sys.executable, "run.py", "--config=sec6_3:smoke", "--out_dir=out"]
        command += ["--config.cvs=", "--config.slo_scales=", "--config.policies=mp-search"]
        subprocess.run(command, cwd=source, capture_output=True, check=True)
        stored = (source / "out/results.jsonl").read_bytes().count(b"\n")
        return (source / "out/table.csv").read_bytes(), stored

    def edit(module: str, old: str, new: str) -> None:
        path = file(source, module)
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    table, stored = run()
    edit("beta_jax.search.scoring", "from __future__", "# Words.\nfrom __future__")
    edit("beta_jax.workloads.synthesis", '"""Share a total rate', '"""In other words, share a rate')
    assert run() == (table, stored)
    edit("beta_jax.workloads.synthesis", "i**-0.5", "i**-0.6")
    other, stored_then = run()
    assert other != table and stored_then == 2 * stored
