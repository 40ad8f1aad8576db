"""Progress on a terminal, nothing in a pipe; text that a stream cannot encode; internal errors."""

import io
import os
import subprocess
import sys

import pytest

from patterndsl import cli
from patterndsl.commands import output
from tests.cli import patterndsl

WORK = """
import time
from patterndsl.commands import output
output.PATIENCE = 0.05
with output.progress("counting"):
    time.sleep(1.5)
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_progress_shows_on_a_terminal():
    ours, theirs = os.openpty()
    subprocess.run(
        [sys.executable, "-c", WORK], stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    assert b"counting" in os.read(ours, 10_000)
    os.close(ours)


def test_progress_is_silent_in_a_pipe():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


def test_what_cannot_be_encoded_is_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    output.print_text("Θ(n)", stream)
    stream.flush()
    assert stream.buffer.getvalue() == b"?(n)\n"


def test_internal_errors_are_one_line_unless_debugging(monkeypatch):
    def broken(arguments):
        raise ZeroDivisionError("a\nfault")

    monkeypatch.setattr(cli.explain, "main", broken)
    result = patterndsl("explain")
    assert result.code == cli.INTERNAL
    assert result.err.splitlines()[0] == "internal error: ZeroDivisionError: a fault"
    assert "report" in result.err and "Traceback" not in result.err
    monkeypatch.setenv("PATTERNDSL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        patterndsl("explain")


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -c 'import patterndsl.cli as c; c.main()' patterns --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "[\n" and done.stderr == ""


def test_bytes_that_are_no_text_in_an_expression():
    result = patterndsl("check", "-e", "causal\udcff")
    assert result.code == 1 and "error[E011]" in result.err
