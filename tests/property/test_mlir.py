"""The textual IR reads back as the same nodes, and damaged text is refused."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.ir.expr import Q, as_expr, build, quantify, var
from patterndsl.ir.mlir import text
from patterndsl.ir.mlir_parser import TextError, parse
from patterndsl.ir.nodes import Complement, Function, Heads, Mix, Module, Range, Where
from patterndsl.patterns import builtin
from patterndsl.patterns.random import draw
from tests.strategies import as_module, grids, nodes

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(nodes(4, choice=True), nodes(2), grids())
def test_text_reads_back(main, other, grid) -> None:
    module = Module(
        Heads((Range(0, 2), Range(2, None, 3)), (main, Mix((grid[1], main))), other),
        {"w": as_expr(4), "v": var("$w") // 2},
        as_module(main).inputs,
        {"far.f": Function(("a", "b"), other)},
    )
    back = parse(text(module))
    assert back == module and back.main is module.main


def test_quantifiers_tables_and_deep_expressions_read_back() -> None:
    deep = Q
    for i in range(500):
        deep = deep + var(f"x{i % 3}'") // 2
    shared = (Q * 3 + 1) % 7
    for keep in (
        quantify("forall", "k", Q, Q + 3, var("k") < 9, 4),
        build("lookup", Q // 2, var("k"), value=draw(0, 4, 2)),
        deep < 3,
        (shared < 3) & (shared * shared < 5),
        as_expr(True),
    ):
        module = Module(Where(keep))
        assert parse(text(module)).main is module.main


def test_what_is_shared_is_written_once() -> None:
    p = builtin("causal")()
    for _ in range(200):
        p = Complement(p) if isinstance(p, Complement) else Complement(Mix((p, p)))
    assert len(text(Module(p)).splitlines()) < 500


def test_a_callable_has_no_text() -> None:
    spec = pd.hierarchical(4, reduce=lambda x: x)
    with pytest.raises(ValueError, match="Python object"):
        text(spec.module)


def test_an_input_may_be_named_like_a_string() -> None:
    spec = pd.parse('input first: token\npattern main = same(first) & tree(3, of="summaries")')
    assert str(spec.module.main) == 'same(first) & tree(3, of="summaries")'


@MANY
@given(nodes(2, choice=True), st.data())
def test_damaged_text_is_refused_or_is_another_module(node, data) -> None:
    written = text(as_module(node))
    at = data.draw(st.integers(0, len(written) - 1))
    cut = data.draw(st.integers(0, 12))
    put = data.draw(st.sampled_from(["", "%", "(", "}", "9", "attn.where", "=", ","]))
    try:
        parse(written[:at] + put + written[at + cut :])
    except TextError as error:
        assert "expected" in str(error)
