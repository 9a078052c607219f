"""What a run prints: shown as it comes, and kept."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, TextIO

WARNING = "warning: "


class _Copied:
    """A stream that is also kept, in all else the stream itself: a terminal stays one."""

    def __init__(self, stream: TextIO, kept: io.StringIO, *, only_warnings: bool) -> None:
        self._stream, self._kept, self._only_warnings = stream, kept, only_warnings
        self._line = ""

    def write(self, text: str) -> int:
        if not self._only_warnings:
            self._kept.write(text)
        else:
            *lines, self._line = (self._line + text).split("\n")
            # What a progress bar has drawn before, it has drawn over.
            ends = (line.rpartition("\r")[2] for line in lines)
            self._kept.writelines(f"{line}\n" for line in ends if line.startswith(WARNING))
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def kept(*, to_stderr: bool) -> Iterator[io.StringIO]:
    """Keep what is printed meanwhile: all of stdout, and the warnings that go to stderr.

    to_stderr: where stdout is for something else.
    """
    text = io.StringIO()
    out: Any = _Copied(sys.stderr if to_stderr else sys.stdout, text, only_warnings=False)
    err: Any = _Copied(sys.stderr, text, only_warnings=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield text
