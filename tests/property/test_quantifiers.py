"""`forall` without its loop against the loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterndsl.ir.critical import changes
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import C, Expr, K, Q, all_of, any_of, as_expr, build, minimum, quantify
from patterndsl.ir.quantifiers import forall

small = st.integers(-6, 9)


@st.composite
def moving(draw: st.DrawFn) -> Expr:
    """A number that moves with k by at most one at a time, as patterns compare."""
    sign, shift = draw(st.sampled_from([1, -1])), draw(st.sampled_from([as_expr(0), Q, Q // 3]))
    x = shift + K if sign > 0 else shift - K
    if draw(st.booleans()):
        x = (x + draw(small)) // draw(st.integers(1, 5))
    if draw(st.booleans()):
        x = draw(st.sampled_from([Q // 2, as_expr(0)])) - x
    return abs(x) if draw(st.booleans()) else x


@st.composite
def comparisons(draw: st.DrawFn) -> Expr:
    left, right = draw(moving()), draw(st.one_of(small.map(as_expr), st.just(Q // 4)))
    if draw(st.booleans()):
        left, right = right, left
    return build(draw(st.sampled_from(["lt", "le", "eq", "ne"])), left, right)


bodies = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds(all_of, inner, inner), st.builds(any_of, inner, inner), st.builds(lambda a: ~a, inner)
    ),
    max_leaves=4,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(bodies, st.integers(1, 30), st.integers(20, 60))
def test_forall_over_the_tokens_of_a_chunk(body: Expr, size: int, n: int) -> None:
    first = C * size
    last = minimum(first + size, n) - 1
    env = {"q": np.arange(-3, n + 3)[:, None], "c": np.arange(-(-n // size))[None, :]}
    shape = np.broadcast_shapes(*(x.shape for x in env.values()))
    found = evaluate(forall("k", first, last, body, size), env)
    loop = evaluate(quantify("forall", "k", first, last, body, size), env)
    np.testing.assert_array_equal(np.broadcast_to(found, shape), np.broadcast_to(loop, shape))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(bodies, st.integers(-5, 25))
def test_between_its_changes_a_predicate_is_constant(body: Expr, q: int) -> None:
    k = np.arange(-80, 120)
    at = changes(body, "k")
    assert at is not None
    truth = np.broadcast_to(evaluate(body, {"q": q, "k": k}), k.shape)
    moved = set(k[1:][truth[1:] != truth[:-1]].tolist())
    assert moved <= {int(evaluate(x, {"q": q})) for x in at}


@pytest.mark.parametrize(
    ("body", "loops"),
    [
        ((abs(Q - K) < 128) | (K < 4), False),
        (abs(K // 4 - Q // 4).ne(1) | K.eq(0), False),
        (((Q - K) % 8).eq(0) | (K < 4), True),
        ((K * 3 <= Q) | (K < 4), True),
    ],
)
def test_what_keeps_its_loop(body: Expr, loops: bool) -> None:
    made = forall("k", C * 64, C * 64 + 63, body, 64)
    assert any(e.op == "forall" for e in made.walk()) is loops


def test_a_range_does_not_read_the_variable_that_it_binds() -> None:
    """The inner body ignores its variable; the outer one, in the inner range, must keep a name of its own."""
    inner = quantify("exists", "k", K, K + 2, Q.eq(3), 3)
    outer = quantify("forall", "k", as_expr(0), as_expr(4), inner, 5)
    assert outer.names() == {"q"}
    assert outer.value != inner.value
    np.testing.assert_array_equal(evaluate(outer, {"q": np.arange(6)}), np.arange(6) == 3)
