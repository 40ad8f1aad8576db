"""Counts as formulas over n."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.analysis.closed_form import ClosedForm, closed_form
from patterndsl.analysis.count import count
from patterndsl.api import named_heads
from patterndsl.diagnostics import SpecError
from patterndsl.ir import resolve
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import Node
from patterndsl.spec import Spec
from tests.analysis.build import make
from tests.strategies import as_module, nodes


def of(text: str) -> ClosedForm:
    module = resolve.inline(resolve.set_params(pd.parse(text).module))
    return closed_form(module, named_heads(module.main))


@settings(max_examples=60)
@given(
    nodes(3, inputs=False, blocks=False),
    st.lists(st.integers(1, 400), min_size=8, max_size=8),
    st.integers(401, 20_000),
)
def test_random_specs(node: Node, lengths: list[int], larger: int) -> None:
    """Equal to the dense mask, and far beyond what it was made from to the exact counter."""
    form = closed_form(as_module(node), 1)
    if form.pairs is None:
        assert form.reasons
        return
    spec = Spec(as_module(node))
    for n in sorted({*range(1, 25), *lengths}):
        if n < form.pairs.start:
            continue
        slots = {p.level: int((c > 0).sum()) for p, c in dense(spec.bind(n), np.arange(n), n).items()}
        assert form.pairs(n) == slots.pop(0, 0)
        if form.slots is not None and n >= form.slots.start:
            assert form.slots(n) - form.pairs(n) == sum(slots.values())
    n = form.pairs.start + larger
    assert count(spec.bind(n), n, n, 0, rows=False).pairs.lower == form.pairs(n)


def triangle(m: int) -> int:
    return m * (m + 1) // 2


HAND: list[tuple[str, str, Callable[[int], int]]] = [
    ("causal", "n(n + 1)/2 for every n", triangle),
    ("full", "n^2 for every n", lambda n: n * n),
    ("none", "0 for every n", lambda n: 0),
    ("self", "n for every n", lambda n: n),
    ("~causal", "n(n − 1)/2 for every n", lambda n: triangle(n - 1)),
    ("causal & local(128)", "128·n − 8128 for n ≥ 127", lambda n: 128 * n - triangle(127)),
    ("local(128)", "255·n − 16256 for n ≥ 127", lambda n: 255 * n - 2 * triangle(127)),
    ("local(64) - local(16)", "96·n − 3792 for n ≥ 63", lambda n: 96 * n - 2 * (triangle(63) - triangle(15))),
    ("causal ^ local(5)", "n(n − 1)/2 for every n", lambda n: triangle(n - 5) + 4 * n - triangle(4)),
    ("sinks(4) | local(8)", "19·n − 94 for n ≥ 11", lambda n: 15 * n - 56 + 4 * (n - 11) + 6),
    ("global(tokens=[0, 5])", "4·n − 4 for n ≥ 6", lambda n: 4 * n - 4),
    ("global(tokens=[0, -1])", "4·n − 4 for n ≥ 2", lambda n: 4 * n - 4),
    ("causal & dilated(8, 4)", "8·n − 112 for n ≥ 28", lambda n: sum(n - 4 * i for i in range(8))),
    (
        "strided(3)",
        "n^2/3 where n mod 3 is 0, (n^2 + 2)/3 where n mod 3 is 1–2 for every n",
        lambda n: sum(((n + 2 - r) // 3) ** 2 for r in range(3)),
    ),
    (
        "causal & strided(64)",
        "(n^2 − r^2 + 64·n + 64·r)/128 with r = n mod 64 for every n",
        lambda n: sum(q // 64 + 1 for q in range(n)),
    ),
    (
        "chunked(16)",
        "r^2 + 16·n − 16·r with r = n mod 16 for every n",
        lambda n: n // 16 * 256 + (n % 16) ** 2,
    ),
    (
        "where(q, k: 2*q + 3*k < 50)",
        "225 for n ≥ 25",
        lambda n: sum(-(-(50 - 3 * k) // 2) for k in range(17)),
    ),
    (
        "where(q, k: k <= q // 2)",
        "n(n + 2)/4 where n mod 2 is 0, (n^2 + 2·n + 1)/4 where n mod 2 is 1 for every n",
        lambda n: sum(q // 2 + 1 for q in range(n)),
    ),
    (
        "local(n // 4)",
        "(7·n^2 − 6·n·r − r^2 − 12·n − 4·r)/16 with r = n mod 4 for n ≥ 4",
        lambda n: (2 * (n // 4) - 1) * n - 2 * triangle(n // 4 - 1),
    ),
    (
        "heads { 0:2 => causal; 2 => local(4) }",
        "n^2 + 8·n − 12 for n ≥ 3",
        lambda n: 2 * triangle(n) + 7 * n - 12,
    ),
]


@pytest.mark.parametrize(("text", "shown", "by_hand"), HAND, ids=[text for text, _, _ in HAND])
def test_by_hand(text: str, shown: str, by_hand: Callable[[int], int]) -> None:
    form = of(text)
    assert str(form) == shown
    assert form.pairs is not None
    for n in (*range(form.pairs.start, 401), 10**6):
        assert form.pairs(n) == by_hand(n)


def test_the_range_is_the_largest() -> None:
    form = of("causal & local(128)").pairs
    assert form is not None
    assert triangle(126) - 1 == 128 * 126 - 8128  # one short, just before the range
    with pytest.raises(ValueError, match="n ≥ 127"):
        form(126)


def test_summaries_of_given_levels_are_summed() -> None:
    form = of("hierarchical(2, levels=1)")
    assert form.slots is not None and form.pairs is not None and list(form.levels) == [1]
    spec = make("hierarchical", 2, levels=1)
    for n in range(form.slots.start, 60):
        found = count(spec.bind(n), n, n, 0)
        assert (found.pairs.lower, found.slots.lower) == (form.pairs(n), form.slots(n))
        assert form.levels[1](n) == found.levels[1].lower
    assert "level 1: " in str(form) and "in all: " in str(form)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("local(ceil(sqrt(n)))", "`ceil(sqrt(n))` is not affine in n"),
        ("where(q, k: q * k < 9)", "`q * k` is a product of positions"),
        ("strided(n // 4)", "divides by what is no fixed number"),
        ("logsparse(2)", "it would hold from n = 1,073,741,"),
        ("butterfly(4)", "reads binary digits"),
        ("causal & random(4)", "drawn at random"),
        ("causal & select(3, 64)", "chosen from q and k"),
        ("input doc: token\npattern main = causal & same(doc)", "run-time inputs"),
        ("causal & strided(7919) & chunked(7907)", "with a period of"),
        ("dilated(3, ceil(log2(n)))", "`ceil(log2(n))`"),
        ("full | local(ceil(sqrt(n)))", "`ceil(sqrt(n))` is not affine in n"),
    ],
)
def test_refusals_say_why(text: str, why: str) -> None:
    form = of(text)
    assert form.pairs is None and form.slots is None
    assert why in str(form) and str(form).startswith("no closed form: ")


def test_tokens_alone_where_the_levels_depend_on_n() -> None:
    form = of("causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))")
    assert form.pairs is not None and form.slots is None
    assert str(form) == (
        "129·n − 8256 for n ≥ 128 (tokens alone: the number of levels of summaries depends on n)"
    )


def test_lengths_without_a_meaning_are_no_part_of_the_range() -> None:
    form = of("sinks(1) & columns([0]) | rows([40])").pairs
    assert form is not None and form.start == 41
    with pytest.raises(SpecError):
        pd.parse("sinks(1) & columns([0]) | rows([40])").bind(40)
    assert of("neighborhood([4, 8], 3)").pairs is None


def test_in_the_report() -> None:
    report = pd.analyze("causal & strided(3)", n=[64, 200])
    assert report.closed_form.pairs is not None
    assert report.closed_form.pairs(200) == report.at(200).pairs
    data = json.loads(json.dumps(report.to_dict()))["closed_form"]["pairs"]
    assert (data["start"], data["period"]) == (1, 3)
    assert data["coefficients"][0] == ["0", "1/2", "1/6"]
    assert "for every n" in str(report)
