"""What a user gets who installs the package: every module, its types, the shipped profiles."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

import beta_jax

import documents

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, check: bool = True) -> str:
    """What a command prints, with no way to the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as a build leaves files in the folder."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("beta_jax", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir=wheel")
    run(sys.executable, "-m", "pip", "wheel", ".", *options, cwd=source)
    (built,) = source.glob("wheel/*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of a user, who has installed the wheel and, in another folder, what it needs."""
    environment = tmp_path_factory.mktemp("user")
    venv.create(environment, symlinks=True)
    (installed,) = environment.glob("lib/python*/site-packages")
    shutil.unpack_archive(wheel, installed, format="zip")
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "python"


@pytest.mark.slow
def test_the_wheel_holds_every_module_the_profiles_and_that_it_is_typed(python):
    (installed,) = python.parents[1].glob("lib/python*/site-packages/beta_jax")

    def files(root: Path) -> set[str]:
        found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        return {name for name in found if "__pycache__" not in name}

    profiles = {
        f"profiles/shipped/{kind}/{path.name}"
        for kind in ("profiles", "cost_models")
        for path in (ROOT / "data" / kind).iterdir()
    }
    assert files(installed) == files(ROOT / "beta_jax") | profiles
    assert "py.typed" in files(installed)


@pytest.mark.slow
def test_an_installed_package_finds_its_profiles(python, tmp_path):
    script = "import beta_jax; print(beta_jax.__file__, beta_jax.load_profile('v100').checksum())"
    file, checksum = run(python, "-c", script, cwd=tmp_path).split()
    assert Path(file).is_relative_to(python.parents[1])
    assert checksum == beta_jax.load_profile(ROOT / "data/profiles/v100.json").checksum()


@pytest.mark.slow
def test_the_scripts_of_readme_print_what_it_says_away_from_the_checkout(python, tmp_path):
    shown = [*documents.blocks("README.md")]
    script, printed = (
        "".join(block.text for block in shown if block.kind == kind) for kind in ("python", "text")
    )
    assert run(python, "-c", script, cwd=tmp_path) == printed
    assert (tmp_path / "timeline.json").stat().st_size > 10_000


SCRIPT = """
    import beta_jax

    profile = beta_jax.load_profile("v100")
    models = beta_jax.make_models(["bert-1.3b"] * 4, profile, slo_scale=5, total_rate_rps=20)
    problem = beta_jax.Problem(models, beta_jax.Cluster(num_devices=4), profile)
    train, *tests = beta_jax.synthesize_many(models, seeds=range(3), duration_s=60)
    result = beta_jax.place("mp-search", problem, train)
    tally = beta_jax.simulate(problem, result.placement, tests, warmup_s=10)
    best = max(tally.attainment.tolist())
    [outcome] = beta_jax.simulate(problem, result.placement, train, outputs="requests")
    counts = beta_jax.miss_reasons(problem, result.placement, outcome)
    beta_jax.queueing.md1_wait_s(1.0, 0.5)

    beta_jax.load_profile(5)  # refused
    beta_jax.load_profil("v100")  # refused
    beta_jax.make_models("bert-1.3b", models, slo_scale=5)  # refused
    beta_jax.Cluster(num_devices="4")  # refused
    beta_jax.place(problem, "mp-search", train)  # refused
    beta_jax.simulate(problem, result.placement, train, outputs="all")  # refused
    beta_jax.simulate(problem, result, train)  # refused
    tally.finish  # refused
    outcome.attainment  # refused
    beta_jax.synthesize(models, duration_s="60")  # refused
"""


@pytest.mark.slow
def test_a_users_mypy_and_editor_see_the_whole_api(python, tmp_path):
    lines = textwrap.dedent(SCRIPT).splitlines()
    names = [f"reveal_type(beta_jax.{name})" for name in beta_jax.__all__]
    (tmp_path / "script.py").write_text("\n".join([*lines, *names, ""]))
    printed = run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "script.py"),
        cwd=tmp_path,
        check=False,
    )
    errors = {int(line) for line in re.findall(r"^script\.py:(\d+): error", printed, re.M)}
    assert errors == {i for i, line in enumerate(lines, 1) if "# refused" in line}, printed
    revealed = re.findall(r'Revealed type is "(.*)"', printed)
    assert len(revealed) == len(names) and "Any" not in revealed, printed


def test_what_type_checkers_see_is_what_is_there():
    text = (ROOT / "beta_jax/__init__.py").read_text()
    seen = re.findall(r"^    from ([\w.]+) import (\w+) as (\w+)$", text, re.M)
    assert sorted(public for _, _, public in seen) == beta_jax.__all__
    for module, name, public in seen:
        origin = importlib.import_module(module)
        assert name == public and getattr(beta_jax, public) is getattr(origin, name)


def test_every_public_name_is_listed_and_no_other_is_there():
    assert {*beta_jax.__all__, "__version__", "__doc__"} <= {*dir(beta_jax)}
    assert len({*dir(beta_jax)}) == len(dir(beta_jax))
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        beta_jax.simulat  # noqa: B018
