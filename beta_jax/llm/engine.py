"""One engine: how much it may run at once, how much memory it has, and what a step takes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from beta_jax.llm.linear import LinearStepTime
from beta_jax.llm.requests import LLMError, TokenRequests

if TYPE_CHECKING:
    from beta_jax.llm.tables import StepTables


@dataclasses.dataclass(frozen=True)
class Engine:
    """A continuous-batching engine, by the rules of vLLM's V1 scheduler.

    max_num_seqs: requests that run at once, at most.
    max_num_batched_tokens: tokens of a step, at most.
    num_blocks: blocks of keys and values, of `block_size` tokens each.
    step_time: what a step takes.
    prefix_caching: whether blocks are found again by their content.

    Raises LLMError where a number is none, or less than 1.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    step_time: LinearStepTime | StepTables
    block_size: int = 16
    prefix_caching: bool = False

    def __post_init__(self) -> None:
        for name, most in (
            ("max_num_seqs", 4000),
            ("max_num_batched_tokens", 2**24),
            ("num_blocks", 2**23),
            ("block_size", 4096),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise LLMError(f"{name} is {value!r}, wanted a whole number from 1 to {most}")

    def require_room(self, requests: TokenRequests) -> None:
        """Raise LLMError if a request has more tokens than all blocks hold: it would never end."""
        if requests.most_tokens > self.num_blocks * self.block_size:
            held = requests.input_tokens.astype(int) + requests.output_tokens - 1
            row = int((held > self.num_blocks * self.block_size).argmax())
            raise LLMError(
                f"row {row}: its {held[row]} tokens can never fit in {self.num_blocks} blocks of "
                f"{self.block_size}: num_blocks must be {-(-int(held.max()) // self.block_size)} "
                "or more"
            )
