"""The choice of splits, layouts and tiles: whatever is forced is the pattern; and it is explained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.ir.nodes import Node
from patterndsl.ir.resolve import at_length
from patterndsl.plan import build, choose
from patterndsl.plan.choose import PLAIN, Question, Shape, in_tiles, structures
from patterndsl.plan.cost import Workload
from patterndsl.plan.plan import Alternative, PartChoice
from patterndsl.plan.rates import rates_of
from tests.plan.test_plan import check
from tests.strategies import INPUT, grids, input_values, nodes

RATES = rates_of("cpu", "xla")


def questions(
    node: Node, n: int, n_q: int | None = None, blocks: tuple[int, int] | None = None
) -> list[Question]:
    n_q = n if n_q is None else n_q
    return build.questions(node, Shape(n, n_q, n - n_q), blocks, Workload(), RATES)


def ways(question: Question, blocks: tuple[int, int]) -> list[Alternative]:
    """Every structure, though the queries may be few; each member alone; and each member alone, reversed."""
    several = len(question.members)
    alone = [(i,) for i in range(several)]
    found = [in_tiles(question, s, blocks) for s in structures(question)]
    for order in (alone, alone[::-1]) if several > 1 else ():
        found.append(in_tiles(question, tuple((m, PLAIN) for m in order), blocks))
    return list(dict.fromkeys(found))


@pytest.fixture(autouse=True)
def no_query_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "FEW_QUERIES", 1)
    monkeypatch.setattr(choose, "MOST_STRUCTURES", 20)


PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
FORCED = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)


def forced(node: Node, n: int, n_q: int, blocks: tuple[int, int]) -> None:
    """Every way to run each branch, replayed."""
    asked = questions(node, n, n_q)
    inputs = dict(input_values((INPUT,), n))
    plain = [in_tiles(q, ((None, PLAIN),), blocks) for q in asked]
    for i, question in enumerate(asked):
        for way in ways(question, blocks):
            given = (tuple(way if j == i else x for j, x in enumerate(plain)),)
            plan = build.build_plan([((0,), node)], n=n, n_q=n_q, q_offset=n - n_q, num_heads=1, given=given)
            check(plan, n - n_q, inputs)


@settings(FORCED, max_examples=25)
@given(
    nodes(3),
    st.integers(1, 90),
    st.sampled_from(["square", "short", "long"]),
    st.sampled_from([(4, 4), (8, 4), (4, 16), (16, 16)]),
)
def test_every_forced_way_is_the_pattern(node: Node, n: int, queries: str, blocks: tuple[int, int]) -> None:
    n_q = {"square": n, "short": max(n // 3, 1), "long": n + 5}[queries]
    try:
        forced(at_length(node, n), n, min(n_q, n) if queries != "long" else n_q, blocks)
    except SpecError as error:
        assert error.codes[0] in ("E309", "E303", "E304", "E305", "E503"), error


@settings(FORCED, max_examples=8)
@given(grids(), st.integers(1, 9))
def test_every_forced_way_on_grids(case: tuple[int, Node], width: int) -> None:
    n, grid = case
    node = at_length(pd.parse(f"local({width}) | rows([0])").module.main, n)
    forced(at_length(type(node)((*node.children, grid)), n), n, n, (8, 8))


@pytest.mark.parametrize(
    "text",
    [
        "causal & (local(9) | strided(8))",
        pytest.param("causal & (local(9) | butterfly)", marks=pytest.mark.slow),
        pytest.param("segments(16, 2) + segments(32, 4) + local(5)", marks=pytest.mark.slow),
        pytest.param("causal & (dilated(4, 4) | hierarchical(4) | columns([3, 9]))", marks=pytest.mark.slow),
        pytest.param(
            "mix(local(4) | global([0, 5]), causal & (logsparse | strided(7)))", marks=pytest.mark.slow
        ),
        pytest.param(
            "causal & (select(2, 8, among=causal - chunked(8)) | lsh(4, rounds=2))", marks=pytest.mark.slow
        ),
    ],
)
def test_every_forced_way_computes_the_reference(text: str) -> None:
    n, heads = 72, 2
    attention = pd.compile(text)
    node = attention.module.main
    asked = questions(at_length(node, n), n)
    plain = [in_tiles(q, ((None, PLAIN),), (16, 16)) for q in asked]
    rng = np.random.default_rng(0)
    shapes = [(1, n, heads, 8), (1, n, 1, 8), (1, n, 1, 8), (1, n, heads, 8)]
    q, k, v, weights = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)
    more = {} if len(asked) == 1 else {"gates": jax.nn.softmax(jnp.ones((1, n, heads, len(asked))))}

    def both(run):
        return jax.jit(jax.value_and_grad(lambda q, k, v: (run(q, k, v, **more) * weights).sum(), (0, 1, 2)))

    want, want_grads = both(lambda *x, **y: pd.reference(text, *x, **y))(q, k, v)
    seen = 0
    for i, question in enumerate(asked):
        for way in ways(question, (16, 8)):
            given = (tuple(way if j == i else x for j, x in enumerate(plain)),)
            got, grads = both(pd.Attention(attention.spec, None, 0, "xla", None, given))(q, k, v)
            np.testing.assert_allclose(got, want, rtol=2e-5)
            for a, b in zip(grads, want_grads, strict=True):
                np.testing.assert_allclose(a, b, atol=3e-5)
            seen += len(way) > 1
    assert seen >= 2, "no split was tried"


# -- decisions -------------------------------------------------------------------------------------------


def decided(text: str, n: int, n_q: int | None = None, **options: object):
    plan = pd.compile(text, **options).plan(n, n_q)
    (branch,) = plan.groups[0].branches
    assert branch.decision is not None
    return branch.decision, plan


def test_a_window_has_one_structure_and_larger_ones_larger_tiles() -> None:
    narrow, _ = decided("causal & local(32)", 4096)
    wide, _ = decided("causal", 4096)
    assert all(len(a) == 1 and a[0].layout == PLAIN for a, _ in narrow.considered)
    assert (
        narrow.chosen[0].block_q * narrow.chosen[0].block_k < wide.chosen[0].block_q * wide.chosen[0].block_k
    )


def test_prices_rise_and_the_chosen_is_about_the_first_or_the_plain_one_is_as_good() -> None:
    decision, plan = decided("causal & (local(64) | logsparse)", 8192)
    prices = [p for _, p in decision.considered if p is not None]
    assert prices == sorted(prices) and len(prices) >= 2
    price = dict(decision.considered)[decision.chosen]
    assert price is not None and price <= choose.ALIKE * prices[0]
    text = plan.explain()
    assert "the fastest of" in text and RATES.origin in text
    assert text.count(" ms: ") == len(prices) and text.count("(chosen)") == 1


def test_a_plan_is_one_line() -> None:
    text = str(pd.compile("causal & (local(64) | strided(64))").plan(8192, num_heads=2))
    assert text.startswith("<Plan: 8192 queries × 8192 keys, 2 heads, 2 parts: identity ")
    assert "; residues(64) " in text and len(text) < 120 and "\n" not in text


def test_choices_are_deterministic() -> None:
    found = []
    for _ in range(2):
        build.forget_plans()
        found.append(decided("causal & (local(64) | strided(48) | columns([0, 7]))", 2048)[0])
    assert found[0] == found[1]


def test_tiles_that_are_given_are_taken() -> None:
    decision, plan = decided("causal & (local(64) | hierarchical(4))", 4096, block_sizes=(32, 64))
    assert {(p.block_q, p.block_k) for p in decision.chosen} == {(32, 64)}
    assert {part.block_q for part in plan.groups[0].branches[0].parts} == {32}


@pytest.mark.parametrize(
    ("n", "n_q", "offset", "why"),
    [(128, 128, 0, "fewer than"), (4096, 64, None, "no known position")],
)
def test_where_there_is_nothing_to_choose(n: int, n_q: int, offset: int | None, why: str) -> None:
    node = at_length(pd.parse("causal & (local(8) | strided(64))").module.main, n)
    plan = build.build_plan([((0,), node)], n=n, n_q=n_q, q_offset=offset, num_heads=1)
    (branch,) = plan.groups[0].branches
    assert branch.decision is not None and why in branch.decision.reason and why in plan.explain()
    assert len(branch.parts) == 1


def test_given_alternatives_must_fit_the_pattern() -> None:
    node = at_length(pd.parse("causal & (local(8) | strided(4))").module.main, 64)
    whole, one = PartChoice(None, False, PLAIN, 16, 16), PartChoice((0,), False, PLAIN, 16, 16)
    for wrong in (
        (one,),
        (whole, one),
        (one, one),
        (PartChoice(None, True, PLAIN, 16, 16),),
        (PartChoice(None, False, "spiral", 16, 16),),
    ):
        with pytest.raises(ValueError):
            build.build_plan([((0,), node)], n=64, n_q=64, q_offset=0, num_heads=1, given=((wrong,),))
    with pytest.raises(ValueError):
        build.build_plan([((0,), node)], n=64, n_q=64, q_offset=0, num_heads=1, given=(((whole,),) * 2,))


def test_what_takes_too_much_memory_gives_way_to_the_next_best(monkeypatch: pytest.MonkeyPatch) -> None:
    build.forget_plans()
    first, _ = decided("causal & (local(64) | logsparse)", 4096)
    real = Question.parts

    def parts(self: Question, alternative: Alternative):
        if alternative == first.chosen:
            build.refuse("the plan's tables", 10**12)
        return real(self, alternative)

    monkeypatch.setattr(Question, "parts", parts)
    build.forget_plans()
    second, _ = decided("causal & (local(64) | logsparse)", 4096)
    others = [a for a, _ in first.considered if a != first.chosen]
    assert second.chosen == others[0] and "memory" in second.reason


@pytest.mark.parametrize("n", [10**12, 2**36])
def test_what_cannot_be_held_is_refused_before_it_is_built(n: int) -> None:
    with pytest.raises(SpecError) as caught:
        pd.compile("causal & (local(64) | strided(64))").plan(n)
    assert caught.value.codes == ("E503",) and "bytes" in str(caught.value).replace("GiB", "bytes")
