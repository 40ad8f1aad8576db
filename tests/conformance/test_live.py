"""Blocks that are skipped on the device: none that keeps anything, and of sorted documents all others."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.api import head_nodes
from patterndsl.backends.facts import facts_of
from patterndsl.backends.xla.heads import pack_heads
from patterndsl.backends.xla.live import Extremes, known, skip
from patterndsl.backends.xla.logits import Runtime, Settings
from patterndsl.backends.xla.tiles import prepare
from patterndsl.ir.dense import dense
from patterndsl.ir.interval import Interval
from patterndsl.ir.normal import TOKENS
from patterndsl.plan import build, rows
from tests.conformance.test_backends import Shape, compare

DOCUMENTS = "input doc: token\npattern main = causal & same(doc)"
CHOSEN = 'causal & (select(2, 8, among=causal - chunked(8), per="block") | chunked(8))'


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows loop over a few blocks at a time, as long ones do."""
    build.forget_plans()
    monkeypatch.setattr(rows, "ONE_SHOT", 16)
    monkeypatch.setattr(rows, "STEP", 16)
    yield
    build.forget_plans()


def test_extremes() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-50, 50, (2, 37))
    low = rng.integers(-3, 43, 200)
    high = low + rng.integers(0, 37, 200)
    found = Extremes.of(jnp.asarray(values), first=2).over(Interval(low, high))
    a, b = np.clip(low - 2, 0, 36), np.clip(high - 2, 0, 36)
    for end, of in ((found.lo, np.min), (found.hi, np.max)):
        want = [[of(row[i : j + 1]) for i, j in zip(a, b, strict=True)] for row in values]
        np.testing.assert_array_equal(end, want)


SELECTED = "causal & (select(2, 8, among=causal) | chunked(8))"
SHARE = 'causal & select(mass=0.05, block=4, per="block") | self'
TEXTS = [(DOCUMENTS, True), (CHOSEN, True), (SELECTED, True), (SHARE, True), (f"{CHOSEN} | lsh(4)", False)]


@pytest.mark.parametrize(("text", "tight"), TEXTS)
@pytest.mark.parametrize(("n", "n_q", "offset"), [(90, 90, 0), (90, 37, 53), (70, 70, None)])
def test_blocks_left(text: str, tight: bool, n: int, n_q: int, offset: int | None) -> None:
    spec, heads, block = pd.parse(text), 2, 8
    nodes = head_nodes(pd.compile(spec).module, n, heads)
    plan = build.build_plan(nodes, n=n, n_q=n_q, q_offset=offset, num_heads=heads, block_sizes=(block, block))
    first = offset or 0
    x = operands(n, n_q, heads, first)
    inputs = (
        {"doc": jnp.asarray(np.sort(np.random.default_rng(1).integers(0, 6, (1, n))))} if spec.inputs else {}
    )
    facts = facts_of([nodes[0][1]], x)
    counts = dense(nodes[0][1], first + np.arange(n_q), n, {**host(inputs), **host(facts)})[TOKENS]
    kept = np.broadcast_to(counts > 0, (1, heads, n_q, n)).any(axis=(0, 1))
    packing = pack_heads(tuple(range(heads)), heads, heads)
    run = Runtime(jnp.int32(first), None, inputs, tuple(packing.fact(facts[f]) for f in plan.facts))
    (part,) = (prepare(p, n, n_q) for p in plan.groups[0].branches[0].parts)
    settings = Settings(n, 1.0, None, plan.facts)
    extremes = known(settings, part, run)
    fewer = 0
    for group in part.rows:
        tables = group.tables()
        for (r, tile), (i, piece) in itertools.product(
            enumerate(np.asarray(tables.tile)), enumerate(group.looped, len(group.at_once))
        ):
            starts, count = tables.starts[i][r], tables.counts[i][r]
            _, left, number = skip(settings, part, piece, starts, count, run, jnp.int32(tile), extremes)
            seen = np.asarray(left)[: int(number)].tolist()
            every = (
                int(starts[0]) + np.arange(count) * block if piece.contiguous else np.asarray(starts)[:count]
            )
            assert len(set(seen)) == len(seen) and set(seen) <= set(every.tolist())
            queries = kept[tile * block : (tile + 1) * block]
            for b in every.tolist():
                needed = queries[:, b : b + block].any()
                assert b in seen if needed else (not tight or b not in seen)
            fewer += len(every) - len(seen)
    assert not tight or fewer > 0


def operands(n: int, n_q: int, heads: int, first: int) -> Any:
    from patterndsl.backends.calling import prepare as checked

    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, t, heads, 4)), jnp.float32) for t in (n_q, n))
    return checked({}, q, k, k, q_offset=first).operands


def host(data: Any) -> dict[Any, Any]:
    """Inputs and facts as NumPy takes them, with axes of batch and heads."""
    found: dict[Any, Any] = {}
    for name, x in data.items():
        plain = isinstance(x, jax.Array)
        found[name] = np.asarray(x)[:, None] if plain else (np.asarray(x.values), np.asarray(x.first))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "causal & same(doc)",
        f"{CHOSEN} & same(doc) | vertical_slash(2, 3)",
        'select(mass=0.5, block=8, per="block", among=causal) | select(17, 1, per="block")',
    ],
)
def test_attention_is_the_reference(text: str) -> None:
    compare(text, Shape(n=90, batch=2, blocks=(8, 8)), "xla")


def test_ids_of_any_size_and_positions_at_the_end_of_int32() -> None:
    """Bounds of their differences would overflow."""
    ids = np.repeat([-(2**31), 2**31 - 1, 7, 2**30], 20).astype(np.int32)
    q, k, v = (
        jnp.asarray(np.random.default_rng(i).standard_normal((1, 80, 2, 8)), jnp.float32) for i in range(3)
    )
    attention = pd.compile("input doc: token\npattern main = same(doc)", backend="xla", block_sizes=(8, 8))
    for doc in (ids, np.roll(ids, 5)):
        np.testing.assert_allclose(
            attention(q, k, v, doc=doc), pd.reference(attention.spec, q, k, v, doc=doc), atol=2e-5
        )
    spec = 'select(2, 8, per="block") | vertical_slash(2, 3)'
    late = 2**31 - 77
    got = pd.compile(spec, backend="xla", block_sizes=(8, 8))(q[:, :77], k, v, q_offset=late)
    np.testing.assert_allclose(got, pd.reference(spec, q[:, :77], k, v, q_offset=late), atol=2e-5)


def test_sequences_of_a_batch_may_differ() -> None:
    """Also where `vmap` makes the batch, and where the first query's position is known late."""
    attention = pd.compile(DOCUMENTS, backend="xla", block_sizes=(8, 8))
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((3, 90, h, 8)), jnp.float32) for h in (2, 1, 1))
    doc = jnp.asarray(np.sort(rng.integers(0, 5, (3, 90)), axis=1))

    def gradients(f: Any) -> Any:
        return jax.value_and_grad(lambda q, k, v: jnp.sum(f(q, k, v) ** 2), (0, 1, 2))(q, k, v)

    want = gradients(lambda q, k, v: pd.reference(DOCUMENTS, q, k, v, doc=doc))
    for f in (
        lambda q, k, v: attention(q, k, v, doc=doc),
        lambda q, k, v: attention(q, k, v, doc=doc, q_offset=jnp.int32(0)),
        lambda q, k, v: jax.vmap(lambda q, k, v, d: attention(q, k, v, doc=d))(q, k, v, doc),
    ):
        for got, expected in zip(jax.tree.leaves(gradients(f)), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(got, expected, atol=2e-4)
