"""Parts in every order: places are a permutation, runs of places have the coordinates that they say, and what
a plan in a forced layout visits is what the pattern keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.ir.dense import dense
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.interval import Interval
from patterndsl.ir.nodes import Node
from patterndsl.ir.normal import TOKENS, branches, walk
from patterndsl.ir.resolve import at_length
from patterndsl.patterns import builtins
from patterndsl.plan.digits import Places, aligned, names, over_coordinates
from patterndsl.plan.orders import (
    Columns,
    Gathered,
    Grid,
    Identity,
    Order,
    Residues,
    Windows,
    best_tile,
    order_of,
)
from patterndsl.plan.parts import part_in
from patterndsl.plan.plan import BranchPlan, HeadGroup, Plan
from patterndsl.plan.tables import Axis
from tests.plan.replay import replay
from tests.plan.test_plan import tokens
from tests.strategies import fact_values

TILES = [(4, 4), (8, 8), (16, 4), (4, 16), (8, 5), (3, 8), (32, 16)]


def forced(node: Node, order: Order, n: int, n_q: int, offset: int, tile: tuple[int, int]) -> Plan:
    """The plan of one part in that order."""
    parts = tuple(
        BranchPlan((part_in(b, order, Axis(offset, n_q, tile[0]), n, tile[1]),)) for b in branches(node, n)
    )
    return Plan(n, n_q, offset, 1, *tile, (HeadGroup((0,), node, parts),))


def check(plan: Plan, inputs: dict[str, np.ndarray] | None = None) -> None:
    assert plan.q_offset is not None
    (group,) = plan.groups
    q, inputs = np.arange(plan.n_q) + plan.q_offset, {**(inputs or {}), **fact_values(group.node, plan.n)}
    found, expected = replay(plan, group, 0, plan.q_offset, inputs), dense(group.node, q, plan.n, inputs)
    nothing = np.zeros((plan.n_q, plan.n), np.int32)
    np.testing.assert_array_equal(found.get(TOKENS, nothing), expected.get(TOKENS, nothing))


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Any order, whatever the length."""
    small = st.integers(1, 6)
    kind = draw(st.sampled_from([Residues, Columns, Grid, Windows, Gathered]))
    if kind is Gathered:
        return Gathered()
    if kind in (Residues, Columns):
        stride = draw(st.integers(2, 20))
        unit = draw(st.integers(1, stride))
        within = draw(st.none() | st.integers(stride, 60))
        return kind(stride, within, unit, draw(st.integers(0, unit - 1)))
    axes = draw(st.integers(1, 3))
    shape, sides, other = (tuple(draw(small) for _ in range(axes)) for _ in range(3))
    if kind is Grid:
        return Grid(shape, sides, other)
    return Windows(shape, sides, other)


# -- places ----------------------------------------------------------------------------------------------


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    orders().filter(lambda o: not isinstance(o, Gathered)),
    st.integers(-40, 60),
    st.integers(1, 150),
    st.sampled_from([1, 3, 4, 5, 8, 16, 32]),
    st.integers(0, 2**16),
)
def test_places_are_a_permutation_and_runs_have_their_coordinates(
    order: Order, first: int, count: int, block: int, seed: int
) -> None:
    places = Places(first, count, order.scheme(block), block)  # type: ignore[union-attr]
    positions = np.arange(first, first + count)
    assert places.size % block == 0 and len(places.order) == places.size
    assert np.array_equal(np.sort(places.order[places.order >= 0]), np.arange(count))
    np.testing.assert_array_equal(places.order[places.of(positions)], np.arange(count))
    coordinates = places.coordinates(positions)
    np.testing.assert_array_equal(
        sum(c * s for c, s in zip(coordinates, places.scheme.strides, strict=True)), positions
    )
    ends = np.sort(np.random.default_rng(seed).integers(0, places.size, (2, 40)), axis=0)
    span, real = places.span(*ends), places.real(*ends)
    for i, (low, high) in enumerate(ends.T):
        here = places.order[low : high + 1]
        here = here[here >= 0]
        assert real[i] == len(here)
        for interval, values in zip(span, coordinates, strict=True):
            assert np.all((interval.lo[i] <= values[here]) & (values[here] <= interval.hi[i]))


def test_runs_within_a_class_have_exact_coordinates() -> None:
    places = Places(0, 64, Residues(8).scheme(4), 4)
    i, r = places.span(np.array([8, 0]), np.array([11, 15]))
    assert (i.lo.tolist(), i.hi.tolist()) == ([0, 0], [3, 7]) and (r.lo.tolist(), r.hi.tolist()) == (
        [1, 0],
        [1, 1],
    )
    places = Places(0, 256, Grid((16, 16), (3, 3), (1, 1)).scheme(16), 16)
    y, x = places.span(np.array([16 * 5]), np.array([16 * 6 - 1]))  # the tile in row 1, column 1
    assert (y.lo[0], y.hi[0], x.lo[0], x.hi[0]) == (4, 7, 4, 7)


@pytest.mark.parametrize(
    ("size", "block", "places"),
    [
        (64, 64, 64),
        (49, 128, 64),
        (33, 128, 64),
        (4, 16, 4),
        (5, 16, 8),
        (65, 64, 80),
        (300, 128, 384),
        (3, 5, 5),
    ],
)
def test_classes_are_padded_where_that_saves_tiles(size: int, block: int, places: int) -> None:
    found = aligned(size, block)
    touched = (found + block - np.gcd(found, block)) / block if found % block else found / block
    assert found == places or (found < places and touched <= -(-size // block) + 1)


def test_tiles_fit_the_grid() -> None:
    assert best_tile([128, 128], (13, 13), 64) == (8, 8)
    assert best_tile([4, 64], (3, 3), 64) == (4, 16)
    assert best_tile([2, 3], (1, 1), 128) == (2, 4)
    assert best_tile([16, 16, 16], (3, 3, 3), 64) == (4, 4, 4)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(orders())
def test_texts_of_orders_read_back(order: Order) -> None:
    assert order_of(str(order)) == order


@pytest.mark.parametrize(
    "text", ["", "residues", "residues(", "residues(a)", "rows(3)", "grid(3, 4, 5, 6)", "a.b(3)"]
)
def test_other_texts_are_no_orders(text: str) -> None:
    with pytest.raises(ValueError, match="no such order"):
        order_of(text)


# -- predicates over coordinates ---------------------------------------------------------------------------


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    tokens.filter(lambda text: "doc" not in text),
    orders().filter(lambda o: not isinstance(o, Gathered)),
    st.integers(1, 60),
    st.integers(-9, 9),
    st.booleans(),
)
def test_a_predicate_over_coordinates_is_the_predicate(
    text: str, order: Order, n: int, offset: int, both: bool
) -> None:
    node = at_length(pd.parse(text).module.main, n)
    (branch,) = branches(node, n)
    if TOKENS not in branch:
        return
    keep, facts = branch[TOKENS].keep, fact_values(node, n)
    scheme = order.scheme(8)  # type: ignore[union-attr]
    places = {"k": Places(0, n, scheme, 8)} | ({"q": Places(offset, n, scheme, 8)} if both else {})
    q, k = np.arange(offset, offset + n), np.arange(n)
    found = over_coordinates(keep, places, {} if both else {"q": Interval(offset, offset + n - 1)})
    env = dict(zip(names("k", scheme), (c[None] for c in places["k"].coordinates(k)), strict=True))
    env |= zip(names("q", scheme), (c[:, None] for c in places["k"].coordinates(q)), strict=True)
    expected = evaluate(keep, {"q": q[:, None], "k": k[None]}, facts)
    got = evaluate(found, env | {"q": q[:, None]}, facts)
    np.testing.assert_array_equal(np.broadcast_to(got, (n, n)), np.broadcast_to(expected, (n, n)))


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("strided(8)", Residues(8), "(q.1 - k.1) % 8 == 0"),
        ("axial([8, 8], 0)", Residues(8), "q.1 == k.1"),
        ("chunked(8)", Grid((8, 8), (1, 1), (1, 1)), "0 <= q.0 - k.0 and q.0 - k.0 <= 0"),
    ],
)
def test_quotients_become_coordinates(text: str, order: Order, expected: str) -> None:
    n = 64
    (branch,) = branches(at_length(pd.parse(text).module.main, n), n)
    scheme = order.scheme(8)  # type: ignore[union-attr]
    places = Places(0, n, scheme, 8)
    assert str(over_coordinates(branch[TOKENS].keep, {"q": places, "k": places}, {})) == expected


# -- parts -----------------------------------------------------------------------------------------------


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    tokens,
    orders(),
    st.one_of(st.integers(1, 60), st.integers(1, 300)),
    st.sampled_from(["square", "last", "short", "long"]),
    st.sampled_from(TILES),
    st.integers(0, 2**16),
)
def test_a_part_in_any_order_is_its_pattern(
    text: str, order: Order, n: int, queries: str, tile: tuple[int, int], seed: int
) -> None:
    n_q = {"square": n, "last": 1, "short": max(n // 3, 1), "long": n + 7}[queries]
    offset = n - n_q if queries != "short" else n // 4
    spec = pd.parse(f"input doc: token\npattern main = {text}")
    doc = np.sort(np.random.default_rng(seed).integers(0, 4, n))
    check(forced(at_length(spec.module.main, n), order, n, n_q, offset, tile), {"doc": doc})


EXAMPLES = sorted({text for cls in builtins().values() for text in cls.examples})


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_builtin_in_the_orders_that_it_names(text: str) -> None:
    n = 256 if "[4, 8, 8]" in text else 64
    declared = "input doc: token\ninput mu: centroids\n"
    node = at_length(pd.parse(f"{declared}pattern main = causal & {text}").module.main, n)
    if node.holds_summaries:
        return
    named = [order for p in walk(node) for order in getattr(p, "layouts", lambda n: ())(n)]
    assert all(order_of(str(order)) == order for order in named)
    for order in named:
        for tile in ((8, 8), (16, 4), (64, 32)):
            check(forced(node, order, n, n, 0, tile))


def test_orders_are_for_tokens_and_known_positions() -> None:
    (branch,) = branches(at_length(pd.parse("hierarchical(2)").module.main, 64), 64)
    with pytest.raises(ValueError, match="for tokens"):
        part_in(branch, Residues(4), Axis(0, 64, 8), 64, 8)
    with pytest.raises(ValueError, match="known positions"):
        part_in({TOKENS: branch[TOKENS]}, Residues(4), Axis(None, 64, 8), 64, 8)


def test_a_layout_beyond_memory_is_refused() -> None:
    n = 2**28
    (branch,) = branches(at_length(pd.parse("strided(4096)").module.main, n), n)
    with pytest.raises(SpecError) as caught:
        part_in(branch, Residues(4096), Axis(0, n, 128), n, 128)
    assert caught.value.codes == ("E503",)


# -- what it is for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n", "tile", "most"),
    [
        ("strided(32)", 2048, (32, 32), 1.0),
        ("causal & strided(32)", 2048, (16, 16), 1.5),
        ("dilated(256, 4)", 2048, (64, 64), 1.5),
        ("causal & dilated(256, 4)", 2048, (64, 64), 1.5),
        ("segments(1024, 4)", 2048, (64, 64), 1.0),
        ("axial([64, 64], 0)", 4096, (64, 64), 1.0),
        ("neighborhood([64, 64], 13)", 4096, (64, 64), 4.0),
        ("neighborhood([64, 64], 7, dilation=2)", 4096, (16, 16), 4.0),
        ("windows([64, 64], 8, shift=4)", 4096, (64, 64), 1.5),
        ("tiles([64, 64], 8, 3)", 4096, (64, 64), 1.0),
        ("causal & columns([::32])", 2048, (64, 16), 1.5),
    ],
)
def test_scattered_patterns_become_dense_tiles(text: str, n: int, tile: tuple[int, int], most: float) -> None:
    node = at_length(pd.parse(text).module.main, n)
    named = [order for p in walk(node) for order in getattr(p, "layouts", lambda n: ())(n)]
    plan = forced(node, named[0], n, n, 0, tile)
    kept = dense(node, np.arange(n), n)[TOKENS].sum()
    assert plan.stats().computed <= most * kept
    plain = forced(node, Identity(), n, n, 0, tile).stats().computed
    assert plan.stats().computed < 0.6 * plain
