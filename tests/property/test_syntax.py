"""Parsing and printing are inverse; nothing but SpecError ever comes out of the parser."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterndsl.diagnostics import SpecError
from patterndsl.syntax import ast, limits
from patterndsl.syntax.formatter import format_file
from patterndsl.syntax.parser import decode, parse_source
from patterndsl.syntax.source import Source
from patterndsl.syntax.tables import build, fingerprint, grammar, grammar_text
from tests.property.syntax_trees import files

SAMPLE = """\
# A spec with everything in it.
import "lib/longformer.attn" as lf
param window = ceil(sqrt(n)) + 4
input doc: token
pattern first(m = 4) = where(q, k: 0 <= k < m and doc[q] == doc[k] or k in [0, 4:8, -1])
pattern main = causal & (local(window) | ~first() | lf.longformer(globals=2)) ^ same(doc) # end
    + heads { 0:4 => tree(2, reduce="max")
              _ => layers { every 6 => full; _ => axial(shape=[8, 8], axis=1) } }
"""
CHANGES = st.tuples(
    st.integers(0, len(SAMPLE)), st.integers(0, 6), st.sampled_from(list('()[]{}|&~,:;=#"\n 9_x'))
)


def parse(text: str) -> ast.File:
    return parse_source(Source("test", text))


@settings(max_examples=150, deadline=None)
@given(files)
def test_parse_undoes_format(file: ast.File) -> None:
    text = format_file(file)
    again = parse(text)
    assert again == file, text
    assert format_file(again) == text


@settings(max_examples=100, deadline=None)
@given(files, st.randoms(use_true_random=False))
def test_comments_survive_anywhere(file: ast.File, rng: random.Random) -> None:
    """A comment after any token keeps the tree, keeps its text, and formats stably."""
    text = format_file(file)
    tokens = [t for t in grammar().lex(text) if t.type != "COMMENT"]
    out, position = "", 0
    for number, token in enumerate(tokens):
        out += text[position : token.end_pos]
        position = token.end_pos
        if rng.random() < 0.2:
            out += rng.choice(["", "\n", "\n\n"]) + f"# c{number}\n" + rng.choice(["", "\n"])
    out += text[position:]
    noisy = parse(out)
    assert (noisy.statements, noisy.expression) == (file.statements, file.expression)
    formatted = format_file(noisy)
    again = parse(formatted)
    assert (again.statements, again.expression) == (file.statements, file.expression), formatted
    assert [c.text for c in again.comments] == [c.text for c in noisy.comments], formatted
    assert format_file(again) == formatted


def survives(data: bytes) -> None:
    try:
        parse_source(decode(data, "test"))
    except SpecError as error:
        assert error.diagnostics
        assert str(error).startswith("error[E0")
        assert all(isinstance(d, dict) for d in error.to_json())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    survives(data)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_random_text(text: str) -> None:
    survives(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_mutated_specs(changes: list[tuple[int, int, str]]) -> None:
    text = SAMPLE
    for at, cut, put in changes:
        text = text[:at] + put + text[at + cut :]
    survives(text.encode())


def test_the_sample_parses() -> None:
    assert len(parse(SAMPLE).statements) == 5


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("(" * 40_000, "E021"),
        ("(" * 100_000, "E020"),
        ("(" * 20_000 + "x" + ")" * 20_000, "E021"),
        ("~" * 40_000 + "x", "E021"),
        ("not " * 10_000 + "x", "E021"),
        ("2 ** " * 10_000 + "2", "E021"),
        ("f(" * 5_000, "E021"),
        ("{" * 5_000, "E021"),
        ("x | " * 12_000 + "x", "E023"),
        ("[" + "1," * 12_000 + "]", "E023"),
        ("9" * 100_000, "E022"),
        ("x" * (limits.MAX_SOURCE + 1), "E020"),
        ("param a = 1\n" * 1_500, "E023"),
    ],
)
def test_limits(text: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert caught.value.codes == (code,)


def test_long_but_allowed() -> None:
    chain = parse("x | " * 9_999 + "x").expression
    assert isinstance(chain, ast.Chain)
    assert len(chain.operands) == 10_000
    assert parse("f(" * 49 + "~" * 2 + "x" + ")" * 49).expression is not None


def test_one_error_for_each_broken_statement() -> None:
    with pytest.raises(SpecError) as caught:
        parse("param a = \npattern b = causal local\ninput c\npattern d = (full\nparam e = 1")
    assert caught.value.codes == ("E003", "E002", "E003", "E004")


def test_the_stored_tables_belong_to_the_grammar() -> None:
    """After a change of attn.lark: python -m patterndsl.syntax.tables."""
    import json
    from importlib.resources import files as resources

    stored = json.loads((resources("patterndsl.grammar") / "attn.tables.json").read_text("utf-8"))
    version, grammar_hash = stored["made_from"].split(", ")
    assert grammar_hash == fingerprint(grammar_text()).split(", ")[1]
    assert len(version.split(".")) == 2, "any patch release of lark may use them"
    afresh = build(grammar_text())
    assert grammar().parse(SAMPLE.split("\n")[3], start="statement") == afresh.parse(
        SAMPLE.split("\n")[3], start="statement"
    )
