"""Replay of a day of real traffic for 72 models: seconds and peak memory.

    python benchmarks/traces.py TRACE

TRACE: a trace file or folder, such as one day of Azure Functions 2019; or `maf1_like`.
"""

import argparse
import resource
import statistics
import time

from beta_jax import traces

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    trace = traces.open_trace(parser.parse_args().trace)
    scale = 2e-3 * traces.reference_scale(trace)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        workload = traces.replay(trace, 72, end="1.0.0", rate_scale=scale, cv_scale=4.0)
        seconds.append(time.perf_counter() - start)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(workload)} requests of a day, 72 models, CV 4, windows of the trace's default")
    print(f"first {seconds[0]:.2f} s, then {statistics.median(seconds[1:]):.2f} s")
    print(f"peak {peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()
