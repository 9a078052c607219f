"""The blocks of keys and values of one engine: counted, or by content where prefixes are reused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from beta_jax.llm.requests import Prefixes


class Held:
    """What one request holds. Without reuse blocks are alike, and `blocks` is not used."""

    __slots__ = ("blocks", "content", "indexed", "number", "room")

    def __init__(self, content: Sequence[int]) -> None:
        self.content = content
        self.number = 0
        self.room = 0
        """Tokens up to which the pool need not be asked: no block to take, none to index."""
        self.blocks: list[int] = []
        self.indexed = 0


class Pool(Protocol):
    @property
    def free(self) -> int: ...

    def find(self, held: Held, length: int) -> tuple[Sequence[int], int]:
        """Blocks that hold the beginning of a request of `length` tokens, and how many are free."""

    def grow(self, held: Held, reach: int, hit: Sequence[int] = ()) -> bool:
        """Give blocks for `reach` tokens, after those of `hit`; without enough change nothing."""

    def release(self, held: Held) -> None: ...

    def decode(self, running: Sequence[Held], done: Sequence[int], steps: int) -> None:
        """Grow each by a token in each of `steps` steps, of which all blocks are free."""


class Counted:
    def __init__(self, number: int, size: int) -> None:
        self.free, self.size = number, size

    def find(self, held: Held, length: int) -> tuple[Sequence[int], int]:
        return (), 0

    def grow(self, held: Held, reach: int, hit: Sequence[int] = ()) -> bool:
        missing = -(-reach // self.size) - held.number
        if missing > self.free:
            return False
        if missing > 0:
            self.free -= missing
            held.number += missing
            held.room = held.number * self.size
        return True

    def release(self, held: Held) -> None:
        self.free += held.number
        held.number = held.room = 0

    def decode(self, running: Sequence[Held], done: Sequence[int], steps: int) -> None:
        for held, now in zip(running, done, strict=True):
            self.grow(held, now + steps)


class Named:
    """Blocks by number. A free one keeps its content, to be found until it is taken."""

    def __init__(self, number: int, size: int) -> None:
        self.size = size
        self.count = [0] * number
        self.label = [-1] * number
        self.queue = OrderedDict.fromkeys(range(number))
        """The free ones, as they will be taken."""
        self.index: dict[int, int] = {}

    @property
    def free(self) -> int:
        return len(self.queue)

    def find(self, held: Held, length: int) -> tuple[Sequence[int], int]:
        hit, idle, index = [], 0, self.index
        for content in held.content[: (length - 1) // self.size]:
            block = index.get(content)
            if block is None:
                break
            hit.append(block)
            idle += self.count[block] == 0
        return hit, idle

    def grow(self, held: Held, reach: int, hit: Sequence[int] = ()) -> bool:
        missing = max(0, -(-reach // self.size) - held.number - len(hit))
        idle = sum(self.count[block] == 0 for block in hit)
        if missing + idle > len(self.queue):
            return False
        for block in hit:
            if not self.count[block]:
                del self.queue[block]
            self.count[block] += 1
        if hit:
            held.blocks, held.indexed = [*hit], len(hit)
        for _ in range(missing):
            self._take(held)
        held.number = len(held.blocks)
        full = min(reach // self.size, len(held.content))
        for content, block in zip(
            held.content[held.indexed : full], held.blocks[held.indexed : full], strict=True
        ):
            self.label[block] = content
            self.index[content] = block
        held.indexed = max(held.indexed, full)
        # The next token to ask for: one that fills a block, or one beyond all blocks.
        held.room = min(held.number * self.size, (reach // self.size + 1) * self.size - 1)
        return True

    def _take(self, held: Held) -> None:
        block, _ = self.queue.popitem(last=False)
        content = self.label[block]
        if content >= 0:
            if self.index.get(content) == block:
                del self.index[content]
            self.label[block] = -1
        self.count[block] = 1
        held.blocks.append(block)

    def release(self, held: Held) -> None:
        for block in reversed(held.blocks):
            self.count[block] -= 1
            if not self.count[block]:
                self.queue[block] = None
        held.blocks, held.indexed, held.number, held.room = [], 0, 0, 0

    def decode(self, running: Sequence[Held], done: Sequence[int], steps: int) -> None:
        # Only the tokens that begin or fill a block ask for something; by step, then in order.
        due = sorted(
            (step, place)
            for place, now in enumerate(done)
            for edge in (0, 1)
            for step in range((edge - now - 1) % self.size + 1, steps + 1, self.size)
        )
        for step, place in due:
            self.grow(running[place], done[place] + step)


def contents(prefixes: Prefixes | None, number: int) -> list[Sequence[int]]:
    """A number for each full block of each request; equal ones for what requests share."""
    if prefixes is None:
        return [()] * number
    found: list[Sequence[int]] = []
    fresh = 0
    for hashed, parent, shared in zip(
        prefixes.hashed_blocks.tolist(),
        prefixes.parent.tolist(),
        prefixes.shared_blocks.tolist(),
        strict=True,
    ):
        own = range(fresh, fresh + hashed - shared)
        fresh += hashed - shared
        found.append([*found[parent][:shared], *own] if shared else own)
    return found
