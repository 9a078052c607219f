"""Tasks side by side: in order, nested, and all ended by an error or an interruption."""

from __future__ import annotations

import _thread
import threading
import time

import pytest

from beta_jax.parallel import run_parallel


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def test_values_come_in_order_from_several_threads_that_may_nest():
    both = threading.Barrier(2, timeout=30)

    def outer(i: int) -> list[int]:
        both.wait()  # two tasks are under way at once
        return run_parallel(lambda j: 10 * i + j, range(3))

    assert run_parallel(outer, [1, 2]) == [[10, 11, 12], [20, 21, 22]]
    assert run_parallel(outer, []) == []


@pytest.mark.parametrize("how", ("error", "interruption"))
def test_nothing_goes_on_after_the_end(how: str):
    """Inner tasks of another thread, too, do not go on; and later ones may."""
    begun: list[int] = []
    started = threading.Event()

    def count(i: int) -> None:
        begun.append(i)
        started.set()
        time.sleep(0.001)

    def outer(task: str) -> None:
        if task == "many":
            for _ in range(50_000):
                run_parallel(count, [0, 1])
        started.wait(30)
        if how == "error":
            raise ValueError("on purpose")
        _thread.interrupt_main()
        time.sleep(0.1)

    with pytest.raises(ValueError if how == "error" else KeyboardInterrupt):
        run_parallel(outer, ["end", "many"])
    after = len(begun)
    assert 0 < after < 100_000
    time.sleep(0.05)
    assert len(begun) == after
    assert run_parallel(str, [1, 2]) == ["1", "2"]
