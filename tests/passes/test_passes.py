"""What each pass does to specs, written as specs."""

from __future__ import annotations

import pytest

import patterndsl as pd
from patterndsl.ir.nodes import Module
from patterndsl.passes import PASSES, optimize, run


def after(name: str, spec: str) -> str:
    return str(PASSES[name].apply(pd.parse(spec).module).main)


CANONICAL = [
    ("blocks(blocks(local(3), 2), 6)", "blocks(local(3), size=6)"),
    ("blocks(blocks(local(3), 6), 2)", "blocks(local(3), size=6)"),
    ("blocks(blocks(local(3), 2), 3)", "blocks(blocks(local(3), size=2), size=3)"),
    ("(causal | none) | causal | self", "causal | self"),
    ("strided(4) & full & strided(4)", "strided(4)"),
    ("strided(4) & none", "none"),
    ("strided(4) & ~strided(4)", "none"),
    ("strided(4) | ~strided(4)", "full"),
    ("where(q, k: k < q) | where(q, k: k >= q)", "full"),
    ("~~strided(4)", "strided(4)"),
    ("~full", "none"),
    ("~where(q, k: k < 3)", "where(q, k: 3 <= k)"),
    ("~(~strided(4) | rows([0]))", "strided(4) & ~rows([0])"),
    ("~(~strided(4) & ~rows([0]))", "strided(4) | rows([0])"),
    ("~(strided(4) & rows([0]))", "~(strided(4) & rows([0]))"),
    ("strided(4) - rows([0])", "strided(4) & ~rows([0])"),
    ("strided(4) - strided(4)", "none"),
    ("strided(4) - full", "none"),
    ("strided(4) ^ strided(4)", "none"),
    ("strided(4) ^ rows([0]) ^ strided(4)", "rows([0])"),
    ("strided(4) ^ full", "~strided(4)"),
    ("~strided(4) ^ ~rows([0])", "strided(4) ^ rows([0])"),
    ("local(left=3, right=3)", "local(4)"),
    ("local(right=0)", "causal"),
    ("local(1)", "self"),
    ("causal & local(8)", "local(left=7, right=0)"),
    ("causal & strided(4) & local(8)", "local(left=7, right=0) & strided(4)"),
    ("local(left=5, right=0) & local(left=0, right=5)", "self"),
    ("dilated(4, 1)", "local(4)"),
    ("dilated(1, 4)", "self"),
    ("strided(1)", "full"),
    ("chunked(1, back=2)", "local(left=2, right=0)"),
    ("segments(8, 1)", "chunked(8)"),
    ("shift(strided(4), 0)", "strided(4)"),
    ("tree(4)", "hierarchical(4, window=0)"),
    (
        'recursive(4, reduce="max", weight="one")',
        'hierarchical(2, window=0, leaf=4, reduce="max", weight="one")',
    ),
    ("where(q, k: 1 < 2)", "full"),
    ("full | hierarchical(4)", "full | hierarchical(4)"),
    ("full & hierarchical(4)", "hierarchical(4)"),
    ("hierarchical(4) | hierarchical(4)", "hierarchical(4)"),
    ("local(n // 4 + 1) & causal", "local(n // 4 + 1) & causal"),
]


@pytest.mark.parametrize(("spec", "expected"), CANONICAL)
def test_canonicalize(spec: str, expected: str) -> None:
    assert after("canonicalize", spec) == expected


KEEPS_COUNTS = [
    "strided(4) + strided(4)",
    "~~(causal + self)",
    "full | causal + self",
    "(causal + self) & (causal + self)",
    "(causal + self) - rows([0])",
    "~(~(causal + self) | rows([0]))",
]


@pytest.mark.parametrize("spec", KEEPS_COUNTS)
def test_counts_above_one_are_left_alone(spec: str) -> None:
    assert after("canonicalize", spec) == str(pd.parse(spec).module.main)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("local(ceil(sqrt(10)))", "local(4)"),
        ("local(2 * 3 + 1)", "local(7)"),
        ("local(n + 1 - 1)", "local(n)"),
        ("local(1 + n + 2)", "local(n + 3)"),
        ("where(q, k: k + 1 + 1 < q)", "where(q, k: k + 2 < q)"),
        ("strided(ceil(sqrt(n)))", "strided(ceil(sqrt(n)))"),
    ],
)
def test_fold(spec: str, expected: str) -> None:
    assert after("fold", spec) == expected


def test_inline() -> None:
    module = pd.parse("pattern near(m) = local(m) & causal\npattern main = near(4) | near(m=9)").module
    inlined = PASSES["inline"].apply(module)
    assert str(inlined.main) == "local(4) & causal | local(9) & causal"
    assert not inlined.functions


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("local(64) | local(128)", "local(128)"),
        ("local(128) | local(64)", "local(128)"),
        ("strided(8) | strided(4) | strided(6)", "strided(4) | strided(6)"),
        ("chunked(8) & local(8)", "chunked(8)"),
        ("chunked(8) | where(q, k: q // 8 == k // 8)", "chunked(8)"),
        ("causal & (columns([0]) | where(q, k: k > q) | where(q, k: k > q + 3))", "causal & columns([0])"),
        ("causal & (strided(4) | causal & strided(8))", "causal & strided(4)"),
        ("causal & (strided(4) + where(q, k: k > q))", "causal & strided(4)"),
        ("local(9) & (local(4) | strided(4) | dilated(20, 4))", "local(9) & (local(4) | strided(4))"),
        ("same(doc) & local(4) | same(doc) & local(9)", "same(doc) & local(9)"),
        ("random(2) | random(2) & causal", "random(2) | random(2) & causal"),
        ("rows([0]) + rows([0, 1])", "rows([0]) + rows([0, 1])"),
        ("local(64) | rows([0])", "local(64) | rows([0])"),
        ("strided(ceil(sqrt(n)) * 2) | strided(3)", "strided(ceil(sqrt(n)) * 2) | strided(3)"),
    ],
)
def test_subsume(spec: str, expected: str) -> None:
    text = f"input doc: token\npattern main = {spec}" if "doc" in spec else spec
    assert after("subsume", text) == expected


def test_summaries_keep_the_members_that_restrict_them() -> None:
    """The tokens of `hierarchical(2)` lie within `local(4)`; its summaries do not."""
    assert after("subsume", "hierarchical(2, levels=1) & local(4)") == "hierarchical(2, levels=1) & local(4)"
    assert after("subsume", "hierarchical(2, levels=1) | self") == "hierarchical(2, levels=1)"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("columns([0]) & where(q, k: k > n)", "none"),
        ("strided(4) | where(q, k: 2 * k == 2 * q + 1)", "strided(4) | none"),
        ("where(q, k: q < 0)", "where(q, k: q < 0)"),  # a query may stand before the first key
        ("hierarchical(4)", "hierarchical(4)"),
    ],
)
def test_empty(spec: str, expected: str) -> None:
    assert after("empty", spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "causal & (local(8) | strided(4) | rows([0]))",
            "local(left=7, right=0) | causal & (strided(4) | rows([0]))",
        ),
        ("causal & (local(8) + strided(4))", "local(left=7, right=0) + (causal & strided(4))"),
        ("causal & (strided(4) | rows([0]))", "causal & (strided(4) | rows([0]))"),
        ("causal & (local(8) | hierarchical(4))", "local(left=7, right=0) | causal & hierarchical(4)"),
    ],
)
def test_sink_causal(spec: str, expected: str) -> None:
    assert after("sink_causal", spec) == expected


def test_split_disjoint() -> None:
    expected = (
        "strided(4) + (causal & rows([0]) & ~strided(4)) + (chunked(8) & ~strided(4) & ~(causal & rows([0])))"
    )
    assert after("split_disjoint", "strided(4) | causal & rows([0]) | chunked(8)") == expected
    kept = "hierarchical(4) | strided(4)"
    assert after("split_disjoint", kept) == kept
    assert after("split_disjoint", f"{kept} | self") == "strided(4) + (self & ~strided(4)) | hierarchical(4)"


def optimized(spec: str) -> Module:
    return optimize(pd.parse(spec).module)


def test_the_whole_pipeline() -> None:
    assert str(optimized("local(64) | local(128) | none").main) == "local(128)"
    assert str(optimized("causal & ~causal").main) == "none"


def test_what_is_rewritten_keeps_a_span() -> None:
    spec = pd.parse("local(64) | strided(4) & full")
    module = run(spec.module)
    assert module.spans[module.main].text == "local(64) | strided(4) & full"
    assert {module.spans[m].text for m in module.main.children} == {"local(64)", "strided(4)"}
