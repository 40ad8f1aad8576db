"""Growth classes against classes derived by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings

from patterndsl.analysis.count import count
from patterndsl.analysis.growth import LINEAR, QUADRATIC, Rate, fit, growth, rate
from patterndsl.builders import ceil, heads, log2, n, sqrt, where
from patterndsl.diagnostics import SpecError
from patterndsl.ir import resolve
from patterndsl.ir.expr import build
from patterndsl.ir.nodes import Node
from patterndsl.ir.normal import walk
from patterndsl.patterns.random import Random
from patterndsl.spec import Spec
from tests.analysis.build import make
from tests.strategies import as_module, nodes

ROOT = ceil(sqrt(n))
causal, full, none, self_ = make("causal"), make("full"), make("none"), make("self")


def local(*args: object, **kwargs: object) -> Spec:
    return make("local", *args, **kwargs)


def hierarchical(*args: object, **kwargs: object) -> Spec:
    return make("hierarchical", *args, **kwargs)


HEADLINE = causal & (local(128) | make("global", tokens=[0]) | hierarchical(factor=4))

TABLE: list[tuple[Spec, str]] = [
    # c(n) by hand: n keys for each of n queries, or half of them
    (full, "Θ(n^2)"),
    (causal, "Θ(n^2)"),
    (~local(4), "Θ(n^2)"),  # n² − 7n + …
    (causal - local(64), "Θ(n^2)"),
    (make("strided", 64), "Θ(n^2)"),  # n²/64
    (make("fixed", 64, 4), "Θ(n^2)"),  # 4 of 64 keys, and the own block
    (make("rows", [slice(None, None, 512)]), "Θ(n^2)"),  # n/512 full rows
    (hierarchical(4, levels=2), "Θ(n^2)"),  # a fixed top level: n/16 chunks a query
    (where(lambda q, k: (q * k) % 7 < 3), "Θ(n^2)"),
    (where(lambda q, k: k * 3 < q), "Θ(n^2)"),
    (heads({0: full, "_": local(3)}), "Θ(n^2)"),  # the head that keeps most
    (local(n // 4), "Θ(n^2)"),
    (make("segments", 1, 3, n // 4), "O(n)"),  # nothing at powers of two, something at others
    # n·sqrt(n)
    (make("strided", ROOT), "Θ(n^1.5)"),
    (make("fixed", ROOT, 1), "Θ(n^1.5)"),
    (local(ROOT), "Θ(n^1.5)"),
    (make("chunked", ROOT), "Θ(n^1.5)"),
    (causal & (local(ROOT) | make("strided", ROOT)), "Θ(n^1.5)"),
    (local(4096) | make("strided", ROOT), "Θ(n^1.5)"),  # the window is larger up to n = 2^26
    (where(lambda q, k: (q - k) * (q - k) < n), "Θ(n^1.5)"),
    # n·log n
    (HEADLINE, "Θ(n log n)"),
    (hierarchical(4), "Θ(n log n)"),
    (hierarchical(10), "Θ(n log n)"),
    (hierarchical(2, leaf=64), "Θ(n log n)"),
    (make("tree", 2), "Θ(n log n)"),
    (make("logsparse"), "Θ(n log n)"),
    (make("butterfly"), "Θ(n log n)"),
    (local(1000) | make("logsparse"), "Θ(n log n)"),
    (local(ceil(log2(n))), "Θ(n log n)"),
    # n
    (causal & local(64), "Θ(n)"),
    (causal & (make("sinks", 4) | local(64)), "Θ(n)"),
    (local(left=9, right=0), "Θ(n)"),
    (self_, "Θ(n)"),
    (make("dilated", 3, 4), "Θ(n)"),
    (make("global", [0]), "Θ(n)"),
    (make("columns", [0, 2]), "Θ(n)"),
    (make("rows", [-1]), "Θ(n)"),
    (make("sinks", 4), "Θ(n)"),
    (make("chunked", 64, 1, 1), "Θ(n)"),
    (make("segments", 64, 4), "Θ(n)"),
    (make("random", 2, block=8), "Θ(n)"),
    (make("transpose", make("columns", [0])), "Θ(n)"),
    (make("shift", local(3), 5), "Θ(n)"),
    (make("blocks", local(3), 4), "Θ(n)"),
    (make("butterfly") & local(9), "Θ(n)"),
    (causal & (make("random", 2) | local(3)), "Θ(n)"),
    (hierarchical(4) & local(9), "Θ(n)"),
    # a fixed number, or nothing
    (local(64) & make("rows", [0]), "Θ(1)"),
    (make("rows", [0]) & make("columns", [slice(0, 64)]), "Θ(1)"),
    (none, "0"),
    (causal & ~causal, "0"),
]


def grow(spec: Spec) -> tuple[str, str]:
    found, why = growth(resolve.inline(spec.module), 2 if "heads" in str(spec) else 1)
    return str(found), why


@pytest.mark.parametrize(("spec", "want"), TABLE, ids=lambda x: str(x) if isinstance(x, Spec) else None)
def test_classes_derived_by_hand(spec: Spec, want: str) -> None:
    assert grow(spec)[0] == want


def test_reason_names_the_member_that_dominates() -> None:
    why = grow(HEADLINE)[1]
    assert why.startswith("hierarchical(4) keeps O(log n) slots a query")
    assert "local(128) at most 255" in why


def test_data_decides_between_bounds() -> None:
    """`same(doc)` keeps between n pairs (all documents of one token) and all."""
    text, why = grow(causal & make("same", "doc"))
    assert text == "O(n^2)"
    assert "run-time inputs" in why
    assert grow(causal & make("same", "doc") & local(8))[0] == "Θ(n)"


def test_a_grid_has_one_length_only() -> None:
    text, why = grow(make("axial", shape=[8, 8], axis=0))
    assert text == "O(n)"
    assert "no exact counts" in why


def test_more_than_one_budget_is_an_upper_bound() -> None:
    from patterndsl.analysis.quadtree import Budget

    found, why = growth(
        resolve.inline(where(lambda q, k: (q * q // 3 + k * k) % 5 < q % 2).module), 1, Budget(0)
    )
    assert str(found) == "O(n^2)"
    assert "upper bound" in why


@pytest.mark.parametrize(
    ("count", "most", "want"),
    [
        (lambda n: 7 * n, QUADRATIC, LINEAR),
        (lambda n: n * n // 3 - 9 * n, QUADRATIC, QUADRATIC),
        (lambda n: n * (n.bit_length() - 1) + 5000 * n, QUADRATIC, Rate(Fraction(1), Fraction(1))),
        (lambda n: n * (n.bit_length() - 1) ** 2, QUADRATIC, Rate(Fraction(1), Fraction(2))),
        (lambda n: n * n // (n.bit_length() - 1), QUADRATIC, None),  # not a class that is known
        (lambda n: 5 * n + (-1) ** n.bit_length() * n // 16, LINEAR, LINEAR),
        (lambda n: 40 + 7 * n.bit_length() % 5, LINEAR, Rate(Fraction(0))),
        (lambda n: 12, LINEAR, Rate(Fraction(0))),
        (lambda n: 127 * n, Rate(Fraction(1), Fraction(1)), LINEAR),
        (lambda n: 40 * int(n**0.5), QUADRATIC, Rate(Fraction(1, 2))),
    ],
)
def test_fit(count: object, most: Rate, want: Rate | None) -> None:
    lengths = [2**i for i in (13, 17, 21, 25)]
    assert fit(lengths, [count(n) for n in lengths], most) == want  # type: ignore[operator]


def test_rates_of_numbers() -> None:
    assert str(rate(n * ceil(sqrt(n)) + 100 * n)) == "n^1.5"
    assert str(rate(n * (n // ceil(sqrt(n)) + 1))) == "n^1.5"
    assert str(rate(n * log2(n) ** 2)) == "n log^2 n"
    assert rate(n // (n * n)) is None
    with pytest.raises(ValueError, match="no class"):
        rate(build("pow", 2, n))


def test_a_spec_without_meaning_at_some_lengths() -> None:
    spec = make("columns", [50_000])
    with pytest.raises(SpecError):
        spec.bind(256)
    assert grow(spec)[0] == "O(n)"


@settings(max_examples=25, deadline=None)
@given(nodes(2, inputs=False, blocks=False))
def test_class_follows_the_counts_at_other_lengths(node: Node) -> None:
    """Between two lengths that were not looked at, the counts grow no faster than the class, and if it is
    tight no slower, up to lower terms."""
    module = as_module(node)
    if any(isinstance(p, Random) for p in walk(node)):  # counted at small lengths only
        return
    found, _ = growth(module, 1)
    totals = []
    lengths = [3 * 2**i for i in (13, 18)]
    for length in lengths:
        got = count(Spec(module).bind(length), length, length, 0, rows=False).slots
        if not got.exact:
            return
        totals.append(got.lower)
    if found.rate is None:
        assert totals[-1] == 0
    if 0 in totals:
        assert found.rate is None or not found.tight
    if found.rate is None or 0 in totals:
        return
    slope = math.log2(totals[1] / totals[0]) / 5
    log = float(found.rate.log) * math.log2(math.log2(lengths[1]) / math.log2(lengths[0])) / 5
    assert slope <= float(found.rate.power) + log + 0.2
    if found.tight:
        assert slope >= float(found.rate.power) - 0.2
