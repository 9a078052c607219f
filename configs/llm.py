"""What rate an engine that serves a language model stands, and how many engines a rate takes.

    python run.py --config llm                     # a shipped engine, generated traffic
    python run.py --config llm --config.service_rps=40                 # how many for 40 requests/s
    python run.py --config llm --config.max_num_batched_tokens=512,2048,8192     # a curve each
    python run.py --config llm --config.engine=tp1.json,tp2.json
    python run.py --config llm --config.model=llama-3.1-8b --config.device_gib=79
    python run.py --config llm --config.rates=1,2,3,4 --config.trace=AzureLLMInferenceTrace_conv.csv

Takes half a minute of processor time, and with --config.service_rps=20 five minutes (319 s, on a
busy machine): it says what each number of engines comes to. Traffic is generated with the
lengths of a conversation service (Azure LLM inference 2023, 5.5 requests/s), sampled from processes
fitted to a trace or to a table of rates, or a log of requests. --config.rates are requests/s. Every
rate is an hour of 16 seeds (engines: 4 at first, all where these leave a doubt), by the rules of
vLLM's scheduler, exact to the token. Expect that one RTX 4090 with Llama 3.1 8B serves 99 % within
2 s to the first token and 0.1 s per token up to some 2.9 requests/s, half of what the service has.

table.csv has a row for every rate and seed, curves.csv means with their 95 % intervals, answers.csv
the highest rate with 99 % within both limits and the number of engines. What is simulated is
stored at once: the same command goes on after an interruption.

docs/llm.md tells the rules, what they predict, and what they do not.
"""

from __future__ import annotations

from experiments.tools import llm

EXPERIMENT = llm.TASK
CONFIG = llm.Config(
    engine=("data/engines/rtx4090-llama-3.1-8b.json",),
    rates=(0.55, 1.1, 1.65, 2.2, 2.75, 3.3, 3.85, 4.4),
    ttft_limit_s=2.0,
    tpot_limit_s=0.1,
)
