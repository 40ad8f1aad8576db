"""Runs the command line in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass

from patterndsl.cli import run_command


@dataclass
class Result:
    code: int
    out: str
    err: str


def patterndsl(*arguments: object, stdin: bytes = b"") -> Result:
    """`patterndsl ARGUMENTS`: exit code and what was printed."""
    out, err = io.StringIO(), io.StringIO()
    old, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command([str(a) for a in arguments])
    finally:
        sys.stdin = old
    return Result(code, out.getvalue(), err.getvalue())
