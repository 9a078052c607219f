"""Where the tests find the published golden results and data, which are not in the repository."""

from __future__ import annotations

import os
import pathlib
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from beta_jax import backend
from beta_jax.search.fill import greedy
from beta_jax.simulator import engine, packing
from beta_jax.simulator.engine import Kernel

# No example has a time limit, nor making one: on a busy machine anything may take long.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[*HealthCheck]
)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    default = pathlib.Path(__file__).resolve().parents[1].parent / "shared"
    parser.addoption(
        "--shared",
        type=pathlib.Path,
        default=default,
        help=f"folder that holds golden/ and data/ (default: {default})",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that says which tests were left out, for want of what."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        told = "; ".join(f"{number}: {reason}" for reason, number in reasons.most_common())
        terminalreporter.write_line(f"left out: {told}")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def forgetful() -> Iterator[None]:
    """Compiled programs of all modules together take gigabytes; the cache on disk has them, too."""
    yield
    backend.forget_programs()


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> pathlib.Path:
    """The folder that holds golden/ and data/; without it a test is skipped, or fails under CI."""
    folder = pytestconfig.getoption("--shared")
    if (folder / "golden").is_dir():
        return folder
    message = f"no golden results in {folder}; give their folder with --shared"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(params=[Kernel.LOCKSTEP, Kernel.SINGLE])
def kernel(request: pytest.FixtureRequest):
    """Of two programs the faster one simulates the lanes at hand; here the same one all of them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (packing, engine, greedy):
            patch.setattr(module, "choose_kernel", lambda *_: request.param)
        yield
