"""Specs from text and from files."""

from __future__ import annotations

import os
from pathlib import Path

from patterndsl.lower import lower
from patterndsl.lower.files import read
from patterndsl.spec import Spec
from patterndsl.syntax.parser import decode, parse_source
from patterndsl.syntax.source import Source


def parse(text: str | bytes, filename: str | os.PathLike[str] | None = None) -> Spec:
    """The spec in a text.

    ``filename`` is shown in messages, and imports are relative to it (without one, to the working directory).
    Raises SpecError with every error found.
    """
    name = "<spec>" if filename is None else str(filename)
    source = decode(text, name) if isinstance(text, bytes) else Source(name, text)
    return _spec(source, None if filename is None else Path(filename))


def load(path: str | os.PathLike[str]) -> Spec:
    """The spec in a file. Raises SpecError with every error found, that of a missing file included."""
    return _spec(read(Path(path), str(path)), Path(path))


def _spec(source: Source, path: Path | None) -> Spec:
    return Spec(lower(parse_source(source), path), source.name)
