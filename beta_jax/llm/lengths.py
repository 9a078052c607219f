"""How long prompts and answers are: a law of both, made of quantiles, and one that ships.

    python -m beta_jax.llm.lengths TRACE

prints the law of a trace with token counts (Azure LLM inference 2023) and how far draws from it
are from the trace. So the numbers below were made.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.llm.requests import MAX_TOKENS, LLMError

PROMPT_LEVELS = (0.0, 0.01, *(i / 20 for i in range(1, 20)), 0.98, 0.99, 0.999, 1.0)
ANSWER_LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
BANDS = 10
STREAM = 1
"""Of a seed's random numbers; arrivals have others."""


@dataclasses.dataclass(frozen=True)
class TokenLengths:
    """The joint law of prompt and answer tokens.

    prompt_tokens: the quantiles of prompts at `PROMPT_LEVELS`. answer_tokens: [band][level], the
    quantiles of answers at `ANSWER_LEVELS`, of the shortest tenth of the prompts, of the next
    tenth, and so on. Between two levels a quantile is interpolated linearly. Raises LLMError for
    tables of another size, that descend, or that hold less than 1.
    """

    prompt_tokens: tuple[int, ...]
    answer_tokens: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        _check("prompt_tokens", [self.prompt_tokens], 1, len(PROMPT_LEVELS))
        _check("answer_tokens", self.answer_tokens, BANDS, len(ANSWER_LEVELS))

    @classmethod
    def fit(cls, prompt_tokens: ArrayLike, answer_tokens: ArrayLike) -> TokenLengths:
        """The law of requests, int [request] both; raises LLMError for fewer than 100."""
        prompt, answer = np.asarray(prompt_tokens), np.asarray(answer_tokens)
        if prompt.shape != answer.shape or prompt.ndim != 1 or len(prompt) < 100:
            raise LLMError(
                f"a law of lengths needs 100 requests or more, got {prompt.shape} and "
                f"{answer.shape} tokens"
            )
        by_prompt = np.array_split(answer[np.argsort(prompt, kind="stable")], BANDS)
        rows = (_quantiles(own, ANSWER_LEVELS) for own in by_prompt)
        return cls(_quantiles(prompt, PROMPT_LEVELS), tuple(rows))

    def sample(self, number: int, *, seed: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Prompt and answer tokens, int32 [number] both.

        The first draws of a seed are the same however many there are.
        """
        of_prompt, of_answer = _generator(seed).random((number, 2)).T
        prompt = np.interp(of_prompt, PROMPT_LEVELS, self.prompt_tokens)
        answer = np.empty(number)
        band = (of_prompt * BANDS).astype(np.int64)
        for index, quantiles in enumerate(self.answer_tokens):
            own = band == index
            answer[own] = np.interp(of_answer[own], ANSWER_LEVELS, quantiles)
        return np.rint(prompt).astype(np.int32), np.rint(answer).astype(np.int32)


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, STREAM]))


def _quantiles(values: NDArray[Any], levels: Sequence[float]) -> tuple[int, ...]:
    return tuple(np.rint(np.quantile(values, levels)).astype(int).tolist())


def _check(name: str, rows: Sequence[Sequence[int]], number: int, columns: int) -> None:
    if len(rows) != number or any(len(row) != columns for row in rows):
        raise LLMError(f"{name}: wanted {number} x {columns} quantiles")
    table = np.array(rows, np.float64)
    if not ((table >= 1) & (table <= MAX_TOKENS // 2)).all() or (np.diff(table) < 0).any():
        raise LLMError(f"{name}: quantiles are tokens, from 1 to {MAX_TOKENS // 2}, ascending")


# fmt: off
LENGTHS: Mapping[str, TokenLengths] = {
    "azure_conversation": TokenLengths(
        prompt_tokens=(
            2, 29, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045,
            1071, 1097, 1130, 1189, 1315, 1876, 2734, 4083, 4098, 4142, 6179, 14050,
        ),
        answer_tokens=(
            (11, 16, 67, 112, 161, 189, 217, 217, 295, 1000, 1000),
            (7, 18, 18, 59, 76, 99, 162, 184, 217, 295, 436),
            (24, 72, 80, 88, 96, 109, 131, 143, 171, 199, 200),
            (25, 75, 81, 89, 99, 113, 140, 153, 200, 568, 739),
            (10, 57, 82, 122, 395, 415, 448, 514, 609, 680, 921),
            (33, 370, 379, 394, 406, 428, 477, 538, 667, 960, 1000),
            (28, 363, 377, 393, 407, 429, 500, 569, 662, 1000, 1000),
            (26, 60, 92, 180, 396, 417, 452, 523, 643, 954, 992),
            (15, 44, 50, 70, 95, 138, 191, 233, 421, 602, 918),
            (17, 30, 35, 43, 58, 87, 132, 154, 256, 671, 757),
        ),
    )
}
# fmt: on
"""Laws by name: `azure_conversation` is that of the conversation trace of Azure LLM inference 2023
(19,366 requests of an hour, CC-BY 4.0), of which no row is repeated here."""


def main(arguments: Sequence[str] | None = None) -> int:
    from beta_jax import traces
    from beta_jax.llm.traffic import trace_tokens

    parser = argparse.ArgumentParser(prog="python -m beta_jax.llm.lengths", description=__doc__)
    parser.add_argument("trace", help="file or folder of an Azure LLM inference trace")
    options = parser.parse_args(arguments)
    try:
        pair = trace_tokens(traces.load_trace(options.trace))
        law = TokenLengths.fit(*pair)
    except (traces.TraceError, LLMError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(law)
    for name, value in deviation(law, *pair).items():
        print(f"{name:44}{value:+8.3f}")
    return 0


def deviation(law: TokenLengths, prompt: ArrayLike, answer: ArrayLike) -> dict[str, float]:
    """How far 200,000 draws are from requests, int [request] both, by name.

    Means relative to those of the requests; the largest distance of distribution functions.
    """
    seen = _sizes(np.asarray(prompt, np.float64), np.asarray(answer, np.float64))
    drawn = _sizes(*(tokens.astype(np.float64) for tokens in law.sample(200_000, seed=0)))
    relative = {f"mean {n}, relative": drawn[n].mean() / seen[n].mean() - 1 for n in seen}
    return relative | {f"largest distance, {n}": _distance(drawn[n], seen[n]) for n in seen}


def _sizes(prompt: NDArray[np.float64], answer: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    return {
        "prompt": prompt,
        "answer": answer,
        "prompt + answer": prompt + answer,
        "prompt x answer": prompt * answer,
    }


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of Kolmogorov and Smirnov."""
    both = np.sort(np.concatenate([a, b]))
    shares = (np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b))
    return float(np.abs(np.subtract(*shares)).max())


if __name__ == "__main__":
    sys.exit(main())
