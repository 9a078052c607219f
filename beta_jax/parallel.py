"""Runs tasks side by side on all cores. A block of lanes is a sequential program, but one of many.

Tasks may run tasks of their own in parallel. An error or Ctrl-C, which Python shows to the main
thread only, ends them all: each at the next task that it would begin.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from beta_jax import backend

Task = TypeVar("Task")
Value = TypeVar("Value")

_stopping = threading.Event()


def run_parallel(function: Callable[[Task], Value], tasks: Sequence[Task]) -> list[Value]:
    """`[function(task) for task in tasks]`, on all cores and JAX's CPU device.

    Tasks that come first start first. Raises the error of the first task that has one.
    """

    def run(task: Task) -> Value:
        if _stopping.is_set():
            raise KeyboardInterrupt
        with backend.on_cpu():  # which is a matter of each thread
            return function(task)

    workers = len(os.sched_getaffinity(0))
    if workers == 1 or len(tasks) < 2:
        return [run(task) for task in tasks]
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(run, tasks))
        except BaseException:
            if threading.current_thread() is threading.main_thread():
                _stop(pool)
            raise


def _stop(pool: ThreadPoolExecutor) -> None:
    """Wait until nothing runs any more."""
    _stopping.set()
    try:
        pool.shutdown(cancel_futures=True)
    finally:
        _stopping.clear()
