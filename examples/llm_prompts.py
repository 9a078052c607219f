"""How many A100s or H100s process the prompts of a conversation service within two seconds?

    python examples/llm_prompts.py --table=prefill.csv --trace=AzureLLMInferenceTrace_conv.csv

table: latency of prompts by device, model, length and configuration; `beta_jax.profiles.prefill`
tells the columns. trace: one file of the Azure LLM inference traces of 2023 or 2024. Every request
takes as long as its own prompt does; "of long" counts the longest tenth of the prompts, and the
last column shows what one would believe if all were of their mean length: too little where long
ones, which are few, miss alone, and too much where the rest is served easily. Placements are found
on the first half of the trace by the published search, and tested on the second; 2x(1,1,4) are two
groups of four pipeline stages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import beta_jax


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _flags().parse_args(arguments)
    try:
        _report(flags)
    except (beta_jax.ProfileError, beta_jax.TraceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, help="CSV file of prefill latencies")
    parser.add_argument("--trace", required=True, help="CSV file of an Azure LLM trace")
    parser.add_argument("--model", default="meta-llama/Llama-2-70b-hf", help="as the table says")
    parser.add_argument("--devices", default="a100,h100", help="as the table says")
    parser.add_argument("--numbers", type=_numbers, default="2,4,8", help="of devices")
    parser.add_argument("--memory_gib", type=float, default=72.0, help="for weights, per device")
    parser.add_argument("--slo_s", type=float, default=2.0, help="from arrival to first token")
    return parser


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected such as 2,4,8, got {text!r}") from None


def _report(flags: argparse.Namespace) -> None:
    trace = beta_jax.load_trace(flags.trace, kind="azure_llm")
    print(f"{'devices':>9}  {'placement':<16}{'in time':>9}{'of long':>9}{'if all alike':>14}")
    for device in flags.devices.split(","):
        table = beta_jax.load_prefill(flags.table, device)
        requests = beta_jax.replay(
            trace,
            num_models=1,
            process="vanilla",
            work=lambda _, tokens, table=table: table.work(flags.model, tokens),
        )
        half = len(requests) // 2
        train, test = requests.part(0, half), requests.part(half, len(requests))
        long = test.work >= np.quantile(test.work, 0.9)
        alike = np.full(len(test), np.rint(requests.work.mean()), np.int32)
        alike = beta_jax.Workload(test.arrival, test.model, alike)
        span_s = float(np.ptp(train.arrival_s))
        model = beta_jax.Model("chat", flags.model, flags.slo_s, rate_rps=half / span_s)
        for number in flags.numbers:
            cluster = beta_jax.Cluster(number, memory_bytes=flags.memory_gib * beta_jax.GB)
            problem = beta_jax.Problem((model,), cluster, table.profile)
            placement = beta_jax.place("mp-search", problem, train).placement
            real, equal = beta_jax.simulate(problem, placement, [test, alike], outputs="requests")
            print(
                f"{number:3} {device:<5}  {placement!s:<16}{real.good.mean():9.1%}"
                f"{real.good[long].mean():9.1%}{equal.good.mean():14.1%}"
            )


if __name__ == "__main__":
    sys.exit(main())
