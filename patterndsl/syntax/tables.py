"""The parser's tables, made from ``grammar/attn.lark`` ahead of time.

Making them takes a quarter of a second, which every start of the command line would pay; reading them takes
a few milliseconds. ``python -m patterndsl.syntax.tables`` writes them after a change of the grammar. They
are used only if they belong to this grammar and this version of lark, and made afresh otherwise.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lark import Lark

TABLES = "attn.tables.json"


@cache
def grammar() -> Lark:
    """The lark parser for .attn files, with the starts ``statement`` and ``expression``."""
    import lark

    text = grammar_text()
    try:
        stored = json.loads((files("patterndsl.grammar") / TABLES).read_text("utf-8"), object_hook=whole_keys)
    except (FileNotFoundError, ValueError):
        stored = {}
    if stored.get("made_from") == fingerprint(text):
        loaded: Lark = lark.Lark.load(stored["parser"])
        return loaded
    return build(text)


def grammar_text() -> str:
    return (files("patterndsl.grammar") / "attn.lark").read_text("utf-8")


def fingerprint(text: str) -> str:
    import lark

    version = ".".join(lark.__version__.split(".")[:2])
    return f"lark {version}, grammar {hashlib.sha256(text.encode()).hexdigest()}"


def build(text: str) -> Lark:
    import lark

    return lark.Lark(
        text,
        parser="lalr",
        lexer="basic",
        start=["statement", "expression", "outside"],
        propagate_positions=True,
        maybe_placeholders=False,
    )


def serialized(text: str) -> str:
    """The tables as JSON."""
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    data, memo = build(text).memo_serialize([TerminalDef, Rule])
    return json.dumps(
        {"made_from": fingerprint(text), "parser": {"data": data, "memo": memo}},
        separators=(",", ":"),
        sort_keys=True,
    )


def whole_keys(pairs: dict[str, Any]) -> dict[Any, Any]:
    """Undo what JSON does to dictionaries with whole numbers as keys."""
    return {int(k) if k.isdigit() else k: v for k, v in pairs.items()}


if __name__ == "__main__":
    from pathlib import Path

    Path(str(files("patterndsl.grammar") / TABLES)).write_text(serialized(grammar_text()) + "\n", "utf-8")
