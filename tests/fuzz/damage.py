"""Strategies for what is nearly right: documents, tables and bytes with something wrong in them."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

DEEP = "@deep@"
"""Stands for lists in lists, deeper than Python recurses: no encoder would write it."""
DEPTH = 20_000

NUMBERS = (
    *(0, 1, -1, 2, 0.5, -0.0, 1e-320, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**400),
    *(math.nan, math.inf, -math.inf),
)
TEXTS = (
    *("", " ", "0", "1", "-1", "0.5", "1e400", "nan", "inf", "-inf", "1_0", "0x10", "none", "x"),
    *("true", "../../x", "/", ".", "a" * 300, "a\nb\nc\nd\ne", "\0", "é", "\u0663", "\ud800", DEEP),
)
ODD = (
    *(None, True, False, *NUMBERS, *TEXTS),
    *([], {}, [None], [0], [[]], {"": None}, {"x": [1]}, [1] * 300),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(part, (*path, key))


def _owner(document: Any, path: Sequence[Any]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


@st.composite
def values(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with one to three places replaced, gone, there twice, or added to."""
    box = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in _places(box) if place]))
        owner, key = _owner(box, path), path[-1]
        action = draw(st.sampled_from(("replace", "replace", "drop", "add", "like another")))
        if action == "drop" and len(path) > 1:
            del owner[key]
        elif action == "add" and len(path) > 1:
            if isinstance(owner, list):
                owner.insert(key, copy.deepcopy(owner[key]))
            else:
                owner[draw(st.sampled_from(TEXTS))] = copy.deepcopy(owner[key])
        elif action == "like another":
            other = draw(st.sampled_from([place for place in _places(box) if place]))
            owner[key] = copy.deepcopy(_owner(box, other)[other[-1]])
        else:
            owner[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return box[0]


def json_bytes(value: Any) -> bytes:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * DEPTH + "]" * DEPTH).encode()


@st.composite
def tables(draw: st.DrawFn, rows: Sequence[Sequence[str]]) -> bytes:
    """A CSV file, its header first, with one to three cells, rows or columns that are wrong."""
    grid = [list(row) for row in rows]
    odd = st.sampled_from([str(n) for n in NUMBERS[:-4]] + [*TEXTS, '"', "a,b", "9" * 150_000])
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(grid) - 1)) if grid else 0
        action = draw(st.sampled_from(("cell", "cell", "drop row", "row twice", "drop", "column")))
        if action == "drop row":
            del grid[row : row + 1]
        elif action == "row twice":
            grid += [list(line) for line in grid[row : row + 1]]
        elif action == "column":
            name = draw(odd)
            grid = [[*line, name] for line in grid]
        elif row < len(grid) and grid[row]:
            column = draw(st.integers(0, len(grid[row]) - 1))
            if action == "drop":
                del grid[row][column]
            else:
                grid[row][column] = draw(odd)
    buffer = io.StringIO()
    end = draw(st.sampled_from(("\n", "\r\n", "\r")))
    if draw(st.booleans()):
        csv.writer(buffer, lineterminator=end).writerows(grid)
    else:
        buffer.write("".join(",".join(row) + end for row in grid))
    return buffer.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def noisy(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """The content, one time in four with bytes cut off, put in, changed, or encoded otherwise."""
    data = draw(content)
    if draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data)))
    match draw(st.sampled_from(("cut", "put", "flip", "bom", "utf-16", "zeros", "twice"))):
        case "cut":
            return data[:at]
        case "put":
            return data[:at] + draw(st.binary(max_size=4)) + data[at:]
        case "flip":
            return data[:at] + bytes(255 - byte for byte in data[at : at + 1]) + data[at + 1 :]
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "utf-16":
            return data.decode("utf-8", "replace").encode("utf-16", "replace")
        case "zeros":
            return data[:at] + bytes(4096)
    return data + data


def documents(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON file that is nearly right."""
    return noisy(st.one_of(st.just(json_bytes(document)), values(document).map(json_bytes)))


def csv_files(rows: Sequence[Sequence[str]]) -> st.SearchStrategy[bytes]:
    """A CSV file that is nearly right."""
    return noisy(tables(rows))
