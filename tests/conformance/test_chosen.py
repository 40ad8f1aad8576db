"""Patterns chosen from q and k: against their definitions, and every way to run them as the reference."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.api import nodes_of
from patterndsl.backends.calling import prepare
from patterndsl.backends.cpu_native import build
from patterndsl.backends.facts import FactArray, best, facts_of, largest_of_both_signs
from patterndsl.grammar import lib
from patterndsl.ir.dense import dense
from patterndsl.ir.normal import TOKENS
from patterndsl.patterns import builtin
from tests.conformance.test_backends import Shape, compare
from tests.oracles import chosen

HEADS, KEY_HEADS, HEAD_DIM = 4, 2, 5
LIBRARY = Path(lib.__file__).parent
Bools = np.ndarray[Any, Any]

# n, n_q, the position of the first query, how many keys exist: ragged, decoding, apart, beyond either end.
SITUATIONS = [
    (22, 22, None, None),
    (22, 9, None, (13, 22)),
    (9, 14, None, None),
    (22, 7, 5, (22, 4)),
    (22, 6, 20, (9, 0)),
    (3, 3, None, None),
]


def operands(n: int, n_q: int, seed: int = 0, batch: int = 2) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    shapes = (batch, n_q, HEADS, HEAD_DIM), (batch, n, KEY_HEADS, HEAD_DIM)
    q, k = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    return q, k


def kept(text: str, q: Any, k: Any, q_offset: Any = None, lengths: Any = None, **inputs: Any) -> Bools:
    """The dense meaning, bool [B, N, n_q, n]: choices as every backend gets them, the rest in NumPy."""
    n, (n_q, heads) = k.shape[1], q.shape[1:3]
    spec = pd.parse(text)
    x = prepare(spec.module.inputs, q, k, k, q_offset=q_offset, kv_lengths=lengths, inputs=inputs).operands
    ((_, node),) = nodes_of(spec, None, 0, n, heads)
    facts = {
        fact: FactArray(np.asarray(array.values), np.asarray(array.first))
        for fact, array in facts_of([node], x).items()
    }
    positions = np.arange(n_q) + int(x.q_offset)
    mask = np.broadcast_to(dense(node, positions, n, facts)[TOKENS] > 0, (len(q), heads, n_q, n))
    return mask if lengths is None else mask & (np.arange(n) < np.asarray(lengths)[:, None, None, None])


def check(text: str, situation: int, oracle: Any, trace_offset: bool = False, **inputs: Any) -> None:
    """``oracle(q, k, positions, existing)`` of each sequence."""
    n, n_q, first, lengths = SITUATIONS[situation]
    q, k = operands(n, n_q, situation)
    offset = n - n_q if first is None else first
    if lengths is not None:  # nobody may look at what does not exist
        k = np.where((np.arange(n) < np.asarray(lengths)[:, None])[..., None, None], k, np.nan)
    given = None if lengths is None else np.asarray(lengths, np.int32)
    found = kept(text, q, k, jnp.int32(offset) if trace_offset else first, given, **inputs)
    for b in range(len(q)):
        existing = n if lengths is None else lengths[b]
        wanted = oracle(q[b], k[b], np.arange(n_q) + offset, existing)
        wanted = wanted & (np.arange(n) < existing)
        np.testing.assert_array_equal(found[b], wanted, err_msg=f"{text} in {SITUATIONS[situation]}")


AMONG: dict[str, Any] = {
    "full": lambda q, k: q + k == q + k,
    "causal": lambda q, k: k <= q,
    "causal - chunked(4)": lambda q, k: k // 4 < q // 4,
    "local(9)": lambda q, k: abs(q - k) < 9,
}
SELECTIONS = list(
    itertools.product(
        [{"count": 2}, {"mass": 0.6}], ["query", "block"], ["mean", "max", "minmax"], ["head", "group"], AMONG
    )
)


def check_select(case: int, situation: int) -> None:
    much, per, by, share, among = SELECTIONS[case]
    count, mass = much.get("count"), much.get("mass")
    first = f"k={count}" if mass is None else f"mass={mass}"
    text = f'select({first}, block=4, among={among}, per="{per}", by="{by}", share="{share}")'

    def oracle(q: Bools, k: Bools, positions: Bools, existing: int) -> Bools:
        may = AMONG[among](positions[:, None], np.arange(len(k))[None, :])
        more: dict[str, Any] = {"among": may, "per": per, "by": by, "share": share}
        return chosen.select(q, k, positions, existing, block=4, count=count, mass=mass, **more)

    check(text, situation, oracle, trace_offset=situation == 3 and case % 2 == 0)


@pytest.mark.parametrize("case", range(0, len(SELECTIONS), 5))
def test_select(case: int) -> None:
    """A fifth of the combinations, in which every two of their values meet."""
    check_select(case, case % len(SITUATIONS))


@pytest.mark.exhaustive
@pytest.mark.parametrize("situation", range(len(SITUATIONS)))
@pytest.mark.parametrize("case", range(len(SELECTIONS)))
def test_select_in_every_situation(case: int, situation: int) -> None:
    check_select(case, situation)


@pytest.mark.parametrize("situation", [0, 2, 3, 4])
def test_lsh(situation: int) -> None:
    rotations = builtin("lsh")(buckets=6, rounds=2, seed=3).rotations(HEAD_DIM)
    assert rotations.shape == (2, HEAD_DIM, 3) and len(np.unique(rotations)) == rotations.size
    check("lsh(6, rounds=2, seed=3)", situation, lambda q, k, *_: chosen.lsh(q, k, rotations))


def test_the_matrices_of_lsh_are_normal() -> None:
    drawn = builtin("lsh")(buckets=64, rounds=2).rotations(64)
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05
    assert abs(np.mean(drawn[0] * drawn[1])) < 0.05
    np.testing.assert_array_equal(drawn, builtin("lsh")(buckets=64, rounds=2).rotations(64))
    assert (drawn != builtin("lsh")(buckets=64, rounds=2, seed=1).rotations(64)).any()


@pytest.mark.parametrize("situation", range(len(SITUATIONS)))
def test_vertical_slash(situation: int) -> None:
    for args in ({"vertical": 3, "slash": 4, "last": 5}, {"vertical": 2, "slash": 3, "first": 1, "near": 2}):
        text = f"vertical_slash({', '.join(f'{name}={value}' for name, value in args.items())})"
        check(text, situation, lambda *x, args=args: chosen.vertical_slash(*x, **args))


@pytest.mark.parametrize(
    "situation", [pytest.param(i, marks=() if i == 1 else pytest.mark.slow) for i in range(len(SITUATIONS))]
)
def test_cluster(situation: int) -> None:
    """For each query head its centroids, of any length, and the same for all."""
    mu = np.random.default_rng(5).standard_normal((HEADS, 3, HEAD_DIM)).astype(np.float32) * [
        [[9], [1], [0.1]]
    ]
    for centroids in (mu, mu[0]):
        args = {"centroids": np.broadcast_to(centroids, mu.shape), "size": 5}
        text, traced = "cluster(3, 5, centroids=mu)", situation == 3
        check(text, situation, lambda *x, args=args: chosen.cluster(*x, **args), traced, mu=centroids)


# -- the shipped library ---------------------------------------------------------------------------------


def test_moba() -> None:
    text = "import moba as m\npattern main = m.moba(block=4, top=3)"
    for situation in (0, 3, 5):
        check(text, situation, lambda q, k, at, _: chosen.moba(q, k, at, block=4, top=3))


def test_nsa() -> None:
    """Each branch as published but for the score, and the three of them summed by gates."""
    params = "import nsa as m\npattern main = m."
    for n, n_q in ((22, 22), (41, 9)):
        q, k = operands(n, n_q, batch=1)
        at = np.arange(n_q) + n - n_q
        own, blocks = at[:, None] // 4, np.arange(n) // 4
        forced = (blocks == 0) | (blocks == own) | (blocks == own - 1)
        best = chosen.select(q[0], k[0], at, block=4, count=2, among=(blocks < own) & ~forced, share="group")
        wanted = (best | forced) & (np.arange(n) <= at[:, None])
        np.testing.assert_array_equal(kept(f"{params}selected(block=4, top=5)", q, k)[0], wanted)
        slots = pd.parse(f"{params}compressed(chunk=6, step=3)").slots(n, n_q)
        seen = [[s, s + 6] for s in range(0, n, 3) if s + 6 <= n]
        for row, i in zip(slots.counts, at, strict=True):
            visible = np.flatnonzero(row)
            found = [[slots.start[c], slots.stop[c]] for c in visible]
            assert found == [chunk for chunk in seen if chunk[1] <= i + 1]
            assert len(found) == (max(0, (i + 1 - 6) // 3 + 1) if i >= 5 else 0)
    rng = np.random.default_rng(0)
    (q, k), gates = operands(22, 22), rng.random((2, 22, HEADS, 3), np.float32)
    branches = ("compressed(6, 3)", "selected(4, 5)", "recent(5)")
    text = "import nsa as m\npattern main = mix(" + ", ".join(f"m.{b}" for b in branches) + ")"
    out = pd.compile(text)(q, k, k, gates=gates)
    alone = [np.asarray(pd.reference(f"{params}{b}", q, k, k)) for b in branches]
    np.testing.assert_allclose(out, sum(gates[..., [i]] * alone[i] for i in range(3)), atol=2e-5)
    assert not alone[0][:, :5].any()  # no whole chunk yet


def test_quest() -> None:
    spec = pd.parse("import quest as m\npattern main = m.quest(budget=20, page=4)")
    for seed, n in enumerate((3, 22, 40, 41, 97)):
        q, k = operands(n, 1, seed, batch=1)
        wanted = chosen.quest(q[0, 0], k[0], page=4, pages=max(3, min(20, n) // 4))
        for h in range(HEADS):
            found = spec.mask(n, 1, head=h, layer=2, operands=(q[0], k[0]))
            np.testing.assert_array_equal(found[0], wanted[h])
    assert spec.mask(9, 1, layer=1, operands=(q[0], k[0, :9])).all()


def test_reformer() -> None:
    """Queries shared with keys: a bucket is then an equivalence, and holds its own query."""
    for seed, n in enumerate((22, 5, 41, 64)):
        k = operands(n, n, seed)[1]
        found = kept("import reformer as m\npattern main = m.reformer(chunk=8, rounds=2)", k, k)
        rotations = builtin("lsh")(buckets=2 * -(-n // 8), rounds=2).rotations(HEAD_DIM)
        for b in range(len(k)):
            wanted = chosen.lsh(k[b], k[b], rotations) & np.tri(n, dtype=bool)
            assert wanted[:, range(n), range(n)].all()
            np.testing.assert_array_equal(found[b], wanted)


@pytest.mark.parametrize("seed", range(3))
def test_routing(seed: int) -> None:
    """Queries shared with keys, of which some are alike: a cluster holds the same of both."""
    k = operands(22, 22, seed)[1][0]
    k[9:12] = k[3:6]
    q = np.repeat(k, 4, axis=1)
    mu = np.random.default_rng(seed + 5).standard_normal((16, HEAD_DIM)).astype(np.float32)
    own = np.broadcast_to(mu, (8, *mu.shape))
    wanted = chosen.cluster(q, k, np.arange(22), centroids=own, size=4) & np.tri(22, dtype=bool)
    wanted[:4] = pd.parse("causal & local(3)").mask(22)
    spec, params = pd.load(LIBRARY / "routing.attn"), {"window": 3, "size": 4}
    for h in (3, 4, 7):
        more: dict[str, Any] = {"operands": (q, k), "inputs": {"centroids": mu}}
        np.testing.assert_array_equal(spec.mask(22, params=params, head=h, **more), wanted[h])
    whole = pd.parse("cluster(2, 4, centroids=mu)").mask(22, operands=(q, k), inputs={"mu": mu[:2]})
    np.testing.assert_array_equal(whole, whole.T)


def test_minference() -> None:
    text = "import minference as m\npattern main = m.vertical_and_slash(40, 120)"
    for seed, n in enumerate((200, 131, 250)):
        q, k = operands(n, n, seed, batch=1)
        args: dict[str, Any] = {"vertical": 40, "slash": 120, "last": 64, "first": 30, "near": 100}
        wanted = chosen.vertical_slash(q[0], k[0], np.arange(n), **args)
        np.testing.assert_array_equal(kept(text, q, k)[0], wanted)
    text = "import minference as m\npattern main = m.block_sparse(top=2, block=4)"

    def blocks(q: Bools, k: Bools, at: Bools, existing: int) -> Bools:
        past = np.arange(len(k))[None, :] // 4 <= at[:, None] // 4
        found = chosen.select(q, k, at, existing, block=4, count=2, among=past, per="block")
        return found & (np.arange(len(k)) <= at[:, None])

    for situation in (0, 1, 2):
        check(text, situation, blocks)


# -- ties, NaN, few blocks -------------------------------------------------------------------------------


def test_of_equal_scores_the_lower_block_is_taken() -> None:
    q, k = operands(22, 6)
    for by in ("mean", "max", "minmax"):
        found = kept(f'select(2, 4, by="{by}")', q, np.ones_like(k))
        assert found[..., :8].all() and not found[..., 8:].any()
        found = kept(f'select(mass=0.3, block=4, by="{by}")', 0 * q, -k)  # of six equal shares two
        assert found[..., :8].all() and not found[..., 8:].any()
    found = kept("vertical_slash(2, 3)", 0 * q[:, -1:], k)  # one query, which sees all alike
    assert found[..., :2].all() and found[..., -3:].all() and found.sum(-1).max() == 5


def test_nan_is_chosen_last() -> None:
    q, k = operands(22, 22)
    k[:, 5] = np.nan  # one of the second block
    rest = kept("select(5, 4)", q, k)
    assert not rest[..., 4:8].any() and rest.sum() == rest[..., 0].size * 18
    assert kept("select(6, 4)", q, k).all()
    q[:, 3] = np.nan  # scores of nothing but NaN are equal
    assert kept("select(1, 4)", q, k)[:, :, 3, :4].all()
    assert kept('select(mass=0.1, block=4, by="max")', q, k).any(axis=-1).all()


@pytest.mark.slow
def test_clusters_of_equals_nan_and_all() -> None:
    q, k = operands(22, 22)
    mu = np.random.default_rng(5).standard_normal((2, HEAD_DIM)).astype(np.float32)
    text = "cluster(2, {}, centroids=mu)"
    found = kept(text.format(4), np.ones_like(q), np.ones_like(k), mu=mu)
    assert found[..., :4, :4].all() and found.sum() == found[..., 0, 0].size * 16
    k[:, 5], q[:, 3], q[:, 4] = np.nan, np.inf, 0  # length 0 has no direction, and a product of 0
    rest = kept(text.format(21), q, k, mu=mu)
    assert not rest[..., 5].any() and not rest[:, :, 3].any() and rest.sum() == rest[..., 0, 0].size * 21**2
    for size in (22, 10**9):
        assert kept(text.format(size), q, k, mu=mu).all()
    assert kept(text.format(4), q * 1e30, k * 1e-30, mu=mu).sum() == kept(text.format(4), q, k, mu=mu).sum()
    wide = kept("cluster(17, 3, centroids=mu)", q, k, mu=np.repeat(mu, [1, 16], axis=0))  # in a loop
    np.testing.assert_array_equal(wide, kept(text.format(3), q, k, mu=mu))


def test_no_more_blocks_than_there_are() -> None:
    q, k = operands(22, 22)
    assert kept("select(7, 4)", q, k).all() and kept("select(100, 4)", q, k).all()
    assert kept("select(1, 1000)", q, k).all() and kept("select(mass=1, block=1)", q, k).all()
    assert not kept("select(0, 4)", q, k).any() and not kept("vertical_slash(0, 0)", q, k).any()
    few = kept("select(17, 1)", q, k)  # more than are compared one by one
    assert (few.sum(-1) == 17).all()
    assert not kept("select(3, 4, among=none)", q, k).any()


# -- attention -------------------------------------------------------------------------------------------

MOBA = "causal & (select(2, 8, among=causal - chunked(8)) | chunked(8))"
COMPOSED = [
    # the two halves of the heads, one of them with choices in a sum
    f"heads {{ 0:2 => {MOBA}; _ => local(3) + lsh(4, seed=1) }}",
    'same(doc) & select(mass=0.6, block=8, among=causal, per="block", share="group") | local(2)',
    'causal & (vertical_slash(3, 4, last=8) | hierarchical(2, leaf=8)) - select(1, 8, by="max")',
    pytest.param(
        "heads { 0:2 => causal & cluster(18, 6, centroids=mu); _ => same(doc) & local(5) }",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("text", COMPOSED)
def test_attention_is_the_reference(text: str) -> None:
    compare(text, Shape(n=53, batch=2), "xla")


@pytest.mark.parametrize(
    "shape",
    [
        Shape(n=70, n_q=19, dtype="bfloat16"),
        pytest.param(Shape(n=21, n_q=40, kv_heads=1), marks=pytest.mark.slow),
        pytest.param(Shape(n=150, blocks=None), marks=pytest.mark.slow),
    ],
    ids=["fewer queries", "more queries", "default blocks"],
)
def test_attention_in_shapes(shape: Shape) -> None:
    compare(f'{MOBA} | vertical_slash(2, 1) & select(1, 16, per="block")', shape, "xla")


def test_attention_of_a_part_of_a_padded_sequence() -> None:
    shape, text = Shape(n=53, n_q=31, batch=2), 'select(2, 8, per="block", among=causal) | local(3)'
    for offset in (17, jnp.int32(17)):
        more: dict[str, Any] = {"q_offset": offset, "kv_lengths": jnp.asarray([40, 0])}
        compare(text, shape, "xla", scale=0.7, softcap=1.5, sinks=jnp.linspace(-1, 1, 4), **more)


def test_transformations() -> None:
    """vmap, scan and checkpoint change no choice."""
    attention = pd.compile(MOBA, backend="xla", block_sizes=(16, 16))
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, 40, h, 8)), jnp.float32) for h in (4, 2, 2))
    want = pd.reference(MOBA, q, k, v)
    np.testing.assert_allclose(attention(q[0], k[0], v[0]), want[0], atol=2e-5)
    _, scanned = jax.lax.scan(lambda c, x: (c, attention(*x)), 0, (q, k, v))
    np.testing.assert_allclose(scanned, want, atol=2e-5)

    def total(f: Any) -> Any:
        return jax.grad(lambda q, k, v: jnp.sum(f(q, k, v) ** 2), (0, 1, 2))(q, k, v)

    want_grads = total(lambda *a: pd.reference(MOBA, *a))
    for f in (jax.vmap(attention), jax.checkpoint(attention)):
        for got, expected in zip(total(f), want_grads, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_no_gradient_flows_through_the_choice() -> None:
    """The gradient is that of attention with the mask that was chosen, held fixed."""
    q, k = operands(22, 22)
    v = operands(22, 22, seed=1)[1]
    mask = jnp.asarray(kept(MOBA, q, k))

    def dense_attention(q: Any, k: Any, v: Any) -> Any:
        k, v = (jnp.repeat(x, HEADS // KEY_HEADS, axis=2) for x in (k, v))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(HEAD_DIM)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(mask, logits, -jnp.inf)), v)

    def gradients(f: Any) -> Any:
        return jax.grad(lambda q, k, v: jnp.sum(jnp.sin(f(q, k, v))), (0, 1, 2))(q, k, v)

    for got, want in zip(
        gradients(lambda *x: pd.reference(MOBA, *x)), gradients(dense_attention), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
def test_no_gradient_flows_to_centroids_and_padding_changes_no_cluster() -> None:
    attention = pd.compile("causal & (cluster(3, 9, centroids=mu) | self)")
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 41, HEADS, HEAD_DIM)), jnp.float32)
    mu = jnp.asarray(rng.standard_normal((HEADS, 3, HEAD_DIM)), jnp.float32)
    found, gradient = jax.value_and_grad(lambda mu: attention(x, x, x, mu=mu).sum())(mu)
    assert found != 0 and not gradient.any()
    padded = attention.bucketed([64])(x, x, x, mu=mu)
    np.testing.assert_allclose(padded, attention(x, x, x, mu=mu), atol=2e-5)
    np.testing.assert_allclose(padded, pd.reference(attention.spec, x, x, x, mu=mu), atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3,), "[k, head_dim] or [heads, k, head_dim]"),
        ((2, 4, 3, 8), "[k, head_dim] or [heads, k, head_dim]"),
        ((2, 3, 8), "[k, 8] or [4, k, 8]"),
        ((3, 7), "[k, 8] or [4, k, 8]"),
        ((4, 5, 8), "[3, 8] or [4, 3, 8]"),
    ],
)
def test_centroids_of_a_wrong_shape_are_refused(shape: tuple[int, ...], expected: str) -> None:
    q, k = jnp.zeros((6, 4, 8)), jnp.zeros((6, 2, 8))
    attention = jax.jit(pd.compile("cluster(3, 2, centroids=mu)"))
    with pytest.raises(pd.SpecError, match=re.escape(expected)) as caught:
        attention(q, k, k, mu=jnp.zeros(shape))
    assert caught.value.codes == ("E403",)


def test_a_choice_beyond_memory_is_refused() -> None:
    attention = pd.compile(f"cluster({2**20}, 4, centroids=mu)")
    q, mu = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2**14, 2, 8), (2**20, 8)))
    with pytest.raises(pd.SpecError, match="the choice of `cluster` would take 64") as caught:
        jax.eval_shape(lambda q, mu: attention(q, q, q, mu=mu), q, mu)
    assert caught.value.codes == ("E503",)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="asks a backend of the CPU")
def test_the_native_backend_leaves_what_is_asked_tile_by_tile_to_xla() -> None:
    q = jnp.zeros((1, 20, 2, 8))
    with pytest.raises(pd.SpecError, match="tile by tile: select") as caught:
        pd.compile("causal & select(mass=0.5, block=4)", backend="cpu_native")(q, q, q)
    assert caught.value.codes == ("E501",)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="asks a backend of the CPU")
@pytest.mark.parametrize("backend", ["cpu_native"])
def test_the_native_kernel_chooses_the_same(backend: str) -> None:
    """Equal scores, zeros of both signs, NaN, ±∞ and too few that may be chosen, in rows of all widths."""
    assert build.load() is None
    kernel = build.library().stem
    rng = np.random.default_rng(0)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0], np.float32)
    for columns, count in ((1, 1), (21, 4), (64, 8), (70, 30)):
        few = rng.choice(odd, (2, 3, 70, columns))
        scores = np.where(rng.random(few.shape) < 0.5, few, rng.standard_normal(few.shape)).astype(np.float32)
        for allowed in (np.ones((1, 1, columns), bool), rng.random((2, 70, columns)) < 0.4):
            found = [best(jnp.asarray(scores), jnp.asarray(allowed), count, name) for name in (kernel, "")]
            np.testing.assert_array_equal(*found)
        found = [largest_of_both_signs(jnp.asarray(scores), name) for name in (kernel, "")]
        np.testing.assert_array_equal(*found)
