"""Canonical text: each ``fmt/NAME.attn`` beside the ``fmt/NAME.out`` that it is formatted to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from patterndsl.syntax import ast
from patterndsl.syntax.formatter import format_file
from patterndsl.syntax.parser import parse_source
from patterndsl.syntax.source import Source

HERE = Path(__file__).parent / "fmt"
LIBRARY = Path(__file__).parents[2] / "grammar" / "lib"


def parsed(path: Path) -> ast.File:
    return parse_source(Source(path.name, path.read_text("utf-8")))


@pytest.mark.parametrize("path", sorted(HERE.glob("*.attn")), ids=lambda p: p.stem)
def test_canonical_text(path: Path, golden: Callable[[Path, str], None]) -> None:
    file = parsed(path)
    text = format_file(file)
    golden(path.with_suffix(".out"), text)
    again = parse_source(Source("again", text))
    assert (again.statements, again.expression) == (file.statements, file.expression)
    assert [c.text for c in again.comments] == [c.text for c in file.comments]
    assert format_file(again) == text


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.attn")), ids=lambda p: p.stem)
def test_the_shipped_library_is_canonical(path: Path) -> None:
    assert format_file(parsed(path)) == path.read_text("utf-8")


def test_no_line_is_longer_than_it_must_be() -> None:
    for path in HERE.glob("*.out"):
        for line in path.read_text("utf-8").splitlines():
            assert len(line.split("#")[0].rstrip()) <= 88 or " " not in line.strip(), f"{path.name}: {line}"
