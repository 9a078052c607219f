"""What a run prints is shown as it comes and kept; progress bars stay what they are."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios

import pytest
from tqdm import tqdm

from experiments.cli import printed


def test_it_is_shown_and_kept_in_order(capsys):
    with printed.kept(to_stderr=False) as text:
        print("a table")
        print("warning: of policies", file=sys.stderr)
        print("no warning", file=sys.stderr)
        sys.stderr.write("warning: in two")
        sys.stderr.write(" parts\nrest")
        print("the end")
    kept = "a table\nwarning: of policies\nwarning: in two parts\nthe end\n"
    assert text.getvalue() == kept
    out, err = capsys.readouterr()
    assert out == "a table\nthe end\n"
    assert err == "warning: of policies\nno warning\nwarning: in two parts\nrest"


def test_stdout_is_left_to_something_else(capsys):
    with printed.kept(to_stderr=True) as text:
        print("a table")
    print("{}")
    assert text.getvalue() == "a table\n"
    assert capsys.readouterr() == ("{}\n", "a table\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_is_drawn_on_a_terminal_only_and_not_kept(terminal, monkeypatch):
    reader, writer = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(writer, (24, 80))
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with printed.kept(to_stderr=False) as text:
            with tqdm(total=3, disable=None) as bar:
                bar.update(3)
            stream.flush()
            sys.stderr.write("\rwarning: after it\n")
            assert sys.stderr.isatty() is terminal
        stream.flush()
        shown = b""
        while b"after it" not in shown and select.select([reader], [], [], 10)[0]:
            shown += os.read(reader, 10_000)  # a terminal may give it in parts
    os.close(reader)
    assert (b"3/3" in shown) is terminal and b"warning: after it" in shown
    assert text.getvalue() == "warning: after it\n"
