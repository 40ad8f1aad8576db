"""Printing: diagnostics, JSON, progress."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from patterndsl.diagnostics import Diagnostic

PATIENCE = 1.0
"""Seconds after which work on a terminal shows that it goes on."""


def colored(stream: TextIO) -> bool:
    """Whether colours are wanted there."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def print_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """On standard error, as text."""
    from patterndsl.diagnostics import render

    print_text(render(diagnostics, color=colored(sys.stderr)), sys.stderr)


def print_json(value: Any) -> None:
    print_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_text(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """With a character that the stream cannot encode replaced, not a crash."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream, end=end)


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Say what is being done while it takes longer than a second, on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    stack = contextlib.ExitStack()
    lock, done = threading.Lock(), False

    def begin() -> None:
        from rich.console import Console

        console = Console(stderr=True)
        with lock:
            if not done:
                stack.enter_context(console.status(f"{what} …"))

    timer = threading.Timer(PATIENCE, begin)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            done = True
            stack.close()
