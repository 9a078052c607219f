"""Which token budget and how many blocks should an engine have? The highest rate of each.

    python examples/llm_engines.py [--seeds 8] [--duration_s 1800]

An engine with the step times of an RTX 4090 and Llama 3.1 8B serves generated conversations. A
small budget keeps tokens coming at an even pace, a large one gets prompts through; blocks bound how
many requests can run. Rates are in requests/s, with 95 % intervals over the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beta_jax import llm

STEP_TIME = llm.LinearStepTime(16_320_000_000, 83_427_000, 188_700, 44_107_000)
LIMITS = llm.Limits(ttft_s=2.0, tpot_s=0.06, warmup_s=30.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--duration_s", type=float, default=1800.0)
    parser.add_argument("--budgets", type=_numbers, default="512,2048,8192")
    parser.add_argument("--blocks", type=_numbers, default="2588,5176")
    options = parser.parse_args(arguments)
    traffic = llm.GeneratedTraffic(rate_rps=1.0, duration_s=options.duration_s)
    print(f"{'budget':>7}{'blocks':>8}{'rate':>7}{'interval':>15}")
    for budget in options.budgets:
        for blocks in options.blocks:
            engine = llm.Engine(256, budget, blocks, STEP_TIME)

            def attempt(rates: Sequence[float], engine: llm.Engine = engine) -> list[list[float]]:
                cases = [
                    (llm.Point(engine, r), seed) for r in rates for seed in range(options.seeds)
                ]
                found = iter(llm.serve(traffic, LIMITS, cases))
                return [[next(found)["attainment"] for _ in range(options.seeds)] for _ in rates]

            best = llm.highest_rate(attempt, [1, 2, 3, 4, 5, 6], 0.99, rounds=1)
            interval = f"{best.low:.2f} to {best.high:.2f}"
            print(f"{budget:7}{blocks:8}{best.rate:7.2f}{interval:>15}")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
