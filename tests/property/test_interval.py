"""Strided intervals against brute force: bounds hold every value, always and never are true of every
position.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import C, Expr, K, Q, as_expr, build, maximum, minimum, quantify, read, var
from patterndsl.ir.interval import EXACT, Interval, bounds, classify
from patterndsl.ir.ranges import BeyondInt32, ZeroDivisor, check_ranges, simplify_over
from patterndsl.ir.table import Table

NUMBERS = ("add", "sub", "mul", "floordiv", "mod", "min", "max")
COMPARISONS = ("lt", "le", "eq", "ne")


def _table(rows: list[list[int]], columns: int) -> Table:
    width = max((len(r) for r in rows), default=0)
    entries = np.full((len(rows), width), columns, np.int32)
    for i, r in enumerate(rows):
        entries[i, : len(r)] = sorted(r)
    return Table(entries, columns)


tables = st.lists(st.lists(st.integers(0, 6), max_size=7, unique=True), max_size=9).map(
    lambda r: _table(r, 7)
)
variables = st.sampled_from([Q, K])
constants = st.integers(-9, 12).map(as_expr)


@st.composite
def numbers(draw: st.DrawFn, depth: int) -> Expr:
    if depth == 0:
        return draw(st.one_of(variables, variables, constants))
    op = draw(st.sampled_from((*NUMBERS, "neg", "abs", "xor", "popcount", "if", "leaf")))
    inner = numbers(depth=depth - 1)
    if op == "leaf":
        return draw(numbers(depth=0))
    if op in ("neg", "abs"):
        return build(op, draw(inner))
    if op == "xor":
        return build(op, abs(draw(inner)), abs(draw(inner)))
    if op == "popcount":
        return build(op, abs(draw(inner)))
    if op == "if":
        return build(op, draw(truths(depth=depth - 1)), draw(inner), draw(inner))
    right = draw(inner)
    if op in ("floordiv", "mod"):  # mostly by a constant, as in every pattern
        right = draw(st.one_of(constants, constants, st.just(right))).subs({})
        right = maximum(right, 1) if right.number is None else as_expr(right.number or 3)
    return build(op, draw(inner), right)


@st.composite
def truths(draw: st.DrawFn, depth: int, plain: bool = False) -> Expr:
    """``plain``: without tables and quantifiers."""
    if depth == 0:
        return build(draw(st.sampled_from(COMPARISONS)), draw(numbers(depth=1)), draw(numbers(depth=1)))
    inner = truths(depth=depth - 1, plain=plain)
    kinds = (
        "and",
        "or",
        "not",
        "compare",
        "compare",
        "if",
        *(() if plain else ("lookup", "forall", "exists")),
    )
    kind = draw(st.sampled_from(kinds))
    if kind == "not":
        return build("not", draw(inner))
    if kind in ("and", "or"):
        return build(kind, draw(inner), draw(inner))
    if kind == "if":
        return build(kind, draw(inner), draw(inner), draw(inner))
    if kind == "lookup":
        return build(kind, draw(numbers(depth=1)), draw(numbers(depth=1)), value=draw(tables))
    if kind in ("forall", "exists"):
        first, trips = draw(numbers(depth=1)), draw(st.integers(1, 4))
        last = minimum(first + (trips - 1), draw(numbers(depth=1)))
        body = draw(truths(depth=0)).subs({"k": var("x") + draw(st.sampled_from([0, K]))})
        return quantify(kind, "x", first, last, body, trips)
    return build(draw(st.sampled_from(COMPARISONS)), draw(numbers(depth=depth)), draw(numbers(depth=depth)))


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, tuple[int, int, int]]:
    """For q and k: first value, how many steps, step."""
    one = st.tuples(st.integers(-6, 20), st.integers(0, 7), st.sampled_from([1, 1, 1, 2, 3, 4]))
    return {"q": draw(one), "k": draw(one)}


def _points(box: dict[str, tuple[int, int, int]]) -> dict[str, np.ndarray]:
    axes = [np.array([lo + i * step for i in range(steps + 1)]) for lo, steps, step in box.values()]
    return dict(zip(box, np.meshgrid(*axes, indexing="ij"), strict=True))


def _interval(lo: int, steps: int, step: int) -> Interval:
    return Interval(lo, lo + steps * step, step if steps else 0)


def _columns(group: list[dict[str, tuple[int, int, int]]], strided: bool) -> dict[str, Interval]:
    """Boxes side by side as arrays; ``strided``: with a step for each, else with step 1 for all."""
    env = {}
    for name in group[0]:
        each = [_interval(*b[name]) for b in group]
        lo, hi, step = (np.array(x, np.int64) for x in zip(*each, strict=True))
        env[name] = Interval(lo, hi, step if strided else 1)
    return env


def _inside(value: Interval, i: int, actual: np.ndarray) -> None:
    lo, hi, step = (int(np.broadcast_to(x, max(i + 1, np.size(x)))[i]) for x in value)
    assert lo <= actual.min() and actual.max() <= hi
    assert (hi - lo) % max(step, 1) == 0
    if step or lo == hi:
        assert np.all((actual - lo) % max(step, 1) == 0)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(numbers(depth=3), st.lists(boxes(), min_size=1, max_size=4), st.booleans())
def test_bounds_hold_every_value(
    e: Expr, group: list[dict[str, tuple[int, int, int]]], strided: bool
) -> None:
    found = bounds(e, _columns(group, strided))
    for i, box in enumerate(group):
        actual = np.asarray(evaluate(e, _points(box)), np.int64)
        _inside(found, i, actual)
        exact = bounds(e, {v: _interval(*b) for v, b in box.items()}, xp=EXACT)
        assert all(isinstance(x, int) for x in exact)
        _inside(exact, 0, actual)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(truths(depth=3), st.lists(boxes(), min_size=1, max_size=4), st.booleans())
def test_always_and_never_are_proofs(
    e: Expr, group: list[dict[str, tuple[int, int, int]]], strided: bool
) -> None:
    found = classify(e, _columns(group, strided))
    for i, box in enumerate(group):
        actual = np.broadcast_to(evaluate(e, _points(box)), _points(box)["q"].shape)
        exact = classify(e, {v: _interval(*b) for v, b in box.items()}, xp=EXACT)
        for always, never in ((found.always, found.never), (exact.always, exact.never)):
            if np.broadcast_to(always, max(i + 1, np.size(always)))[i]:
                assert actual.all()
            if np.broadcast_to(never, max(i + 1, np.size(never)))[i]:
                assert not actual.any()


@settings(max_examples=120, derandomize=True, deadline=None)
@given(truths(depth=2, plain=True), boxes())
def test_a_single_position_is_decided(e: Expr, box: dict[str, tuple[int, int, int]]) -> None:
    """Without tables and quantifiers, a box of one pair is never mixed."""
    at = {v: lo for v, (lo, _, _) in box.items()}
    found = classify(e, {v: Interval(x, x, 0) for v, x in at.items()}, xp=EXACT)
    truth = bool(evaluate(e, at))
    assert (found.always, found.never) == (truth, not truth)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(truths(depth=3), boxes())
def test_simplifying_over_a_box_keeps_the_values(e: Expr, box: dict[str, tuple[int, int, int]]) -> None:
    simpler = simplify_over(e, {v: _interval(*b) for v, b in box.items()})
    points = _points(box)
    np.testing.assert_array_equal(
        np.broadcast_to(evaluate(simpler, points), points["q"].shape),
        np.broadcast_to(evaluate(e, points), points["q"].shape),
    )


@pytest.mark.parametrize(
    ("e", "q", "k", "expected"),
    [
        (abs(Q // 4 - K // 4) <= 1, (0, 127), (256, 383), "never"),
        (abs(K - Q) < 64, (0, 31), (0, 31), "always"),
        (((Q - K) % 8).eq(0), (0, 3), (4, 7), "never"),
        (((Q - K) % 8).eq(0), (0, 0), (8, 8), "always"),
        ((Q - K) <= (Q - K), (0, 100), (0, 100), "always"),
        (Q + K < K + Q + 1, (0, 100), (0, 100), "always"),
        (build("popcount", build("xor", Q // 8, K // 8)) <= 1, (0, 63), (192, 255), "never"),
        (build("popcount", build("xor", Q // 8, K // 8)) <= 1, (0, 7), (64, 71), "always"),
        ((Q % 8).eq(3), (16, 18), (0, 0), "never"),
        (Q.eq(K), (0, 10), (5, 15), "mixed"),
    ],
)
def test_what_tiles_are_decided_by(e: Expr, q: tuple[int, int], k: tuple[int, int], expected: str) -> None:
    found = classify(e, {"q": Interval(*q), "k": Interval(*k)}, xp=EXACT)
    assert ("always" if found.always else "never" if found.never else "mixed") == expected


def test_chunk_under_causal_is_decided_through_its_minimum() -> None:
    """The last token of a chunk, min(4c + 4, n) − 1, against the query."""
    keep = minimum(C * 4 + 4, 1000) - 1 <= Q
    c = Interval(np.array([0, 32, 33, 249]), np.array([31, 32, 40, 249]))
    found = classify(keep, {"q": Interval(127, 131), "c": c})
    assert found.always.tolist() == [True, False, False, False]
    assert found.never.tolist() == [False, False, True, True]


def test_strides_tell_residues_apart() -> None:
    q = Interval(np.array([0, 0, 1]), np.array([120, 120, 121]), 8)
    k = Interval(np.array([0, 3, 3]), np.array([120, 123, 131]), 8)
    found = classify(((Q - K) % 4).eq(0), {"q": q, "k": k})
    assert found.always.tolist() == [True, False, False]
    assert found.never.tolist() == [False, True, True]


def test_inputs_are_unknown_until_their_bounds_are_given() -> None:
    keep = read("doc", Q).eq(read("doc", K))
    env = {
        "q": Interval(np.array([0, 4]), np.array([3, 7])),
        "k": Interval(np.array([0, 0]), np.array([3, 3])),
    }
    unknown = classify(keep, env)
    assert not np.any(unknown.always) and not np.any(unknown.never)

    def bounds_of(node: Expr, position: Interval) -> Interval:
        doc = np.array([5, 5, 5, 5, 7, 7, 8, 8])
        at = [doc[a : b + 1] for a, b in zip(position.lo, position.hi, strict=True)]
        return Interval(np.array([x.min() for x in at]), np.array([x.max() for x in at]))

    known = classify(keep, env, bounds_of)
    assert known.always.tolist() == [True, False] and known.never.tolist() == [False, True]


def test_the_same_evaluator_runs_in_jax() -> None:
    import jax.numpy as jnp

    keep = (
        (K <= Q)
        & (read("doc", Q).eq(read("doc", K)) | ((Q - K) % 8 < 3))
        & (build("xor", abs(Q), abs(K)) < 900)
    )
    lo, hi = np.array([0, 128, 256]), np.array([127, 255, 383])
    q, k = (x.ravel() for x in np.meshgrid(range(3), range(3)))
    env = {"q": Interval(lo[q], hi[q]), "k": Interval(lo[k], hi[k])}
    jaxed = {v: Interval(jnp.asarray(x.lo, jnp.int32), jnp.asarray(x.hi, jnp.int32)) for v, x in env.items()}
    ours = classify(keep, env, lambda e, x: Interval(x.lo // 128, x.hi // 128))
    theirs = classify(keep, jaxed, lambda e, x: Interval(x.lo // 128, x.hi // 128), jnp)
    np.testing.assert_array_equal(ours.always, theirs.always)
    np.testing.assert_array_equal(ours.never, theirs.never)
    assert np.any(ours.never) and not np.all(ours.never)


BOX = {"q": Interval(0, 4095), "k": Interval(0, 4095)}


def test_what_cannot_matter_at_this_length_is_dropped() -> None:
    far = build("or", abs(Q - K).eq(4), abs(Q - K).eq(2**13), abs(Q - K).eq(2**40))
    assert simplify_over(far, BOX) is abs(Q - K).eq(4)
    assert simplify_over((abs(Q - K) < 10**12) & (K <= Q), BOX) is (K <= Q)
    assert simplify_over(maximum(Q, 0) // 8 <= minimum(K, 4095), BOX) is (Q // 8 <= K)


def test_values_beyond_int32_are_found() -> None:
    check_ranges(Q * 4096 + K < 17, BOX)
    with pytest.raises(BeyondInt32, match=r"q \* 1048576"):
        check_ranges(Q * 2**20 - K * 2**20 < 17, BOX)
    with pytest.raises(BeyondInt32):
        check_ranges(K < 10**12, BOX)


def test_divisors_that_can_be_zero_are_found() -> None:
    check_ranges((Q % (K + 1)).eq(0), BOX)
    with pytest.raises(ZeroDivisor, match="%"):
        check_ranges((Q % K).eq(0), BOX)
    with pytest.raises(ZeroDivisor, match="//"):
        check_ranges((Q // (K - 7)).eq(0), BOX)
