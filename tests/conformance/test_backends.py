"""Every backend × every pattern's own examples × shapes: forward and gradients against the reference."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends import Target
from patterndsl.devices import INTERPRETED_TPU
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns import builtins
from patterndsl.patterns.cluster import centroid_counts

BACKENDS = ["xla", "cpu_native", "pallas_tpu"]
"""The last one in Pallas' interpreter, on request (`conftest`)."""
EXAMPLES = [e for cls in builtins().values() for e in cls.examples]
FIRST = [cls.examples[0] for cls in builtins().values()]  # every day; the others in the long run
CHOSEN = {e for cls in builtins().values() if cls.facts is not Pattern.facts for e in cls.examples}
"""Chosen from q and k, which the native backend leaves to others."""
COMBINED = [
    "causal & (local(8) | global(tokens=[0]) | hierarchical(factor=4))",
    "causal & local(8) - columns([3])",
    "rows([5])",  # every other row is empty
    "local(4) & where(q, k: q % 3 != 1)",  # every third row is empty
    "causal & (segments(16, 1) + segments(32, 2))",  # counts above one
    "heads { 0:2 => local(4); _ => causal & hierarchical(2, leaf=8) }",
    "where(q, k: (q - k) % (h + 1) == 0)",
    '(causal | sinks(5)) & (local(6) | tree(3, of="summaries"))',
]


@dataclasses.dataclass(frozen=True)
class Shape:
    """n_q queries (None: n) at n keys; heads and key heads; dtype."""

    n: int
    n_q: int | None = None
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    v_head_dim: int = 8
    dtype: str = "float32"
    batch: int = 1
    blocks: tuple[int, int] | None = (16, 16)


SHAPES = {
    "one": Shape(n=1),
    "ragged": Shape(n=53, batch=2),
    "short queries": Shape(n=70, n_q=19, kv_heads=4),
    "more queries than keys": Shape(n=21, n_q=40),
    "bfloat16, one key head, narrow values": Shape(
        n=50, dtype="bfloat16", head_dim=16, v_head_dim=4, kv_heads=1
    ),
    "default blocks": Shape(n=150, blocks=None),
}


def sized(text: str, shape: Shape) -> Shape:
    """Grids have a length of their own."""
    grid = re.search(r"shape=\[([\d, ]+)\]", text)
    if grid is None:
        return shape
    n = math.prod(int(x) for x in grid[1].split(","))
    return dataclasses.replace(shape, n=n, n_q=None if shape.n_q is None else max(1, n - 5))


def arrays(shape: Shape, seed: int = 0) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    n_q = shape.n_q or shape.n
    sizes = [
        (n_q, shape.heads, shape.head_dim),
        (shape.n, shape.kv_heads, shape.head_dim),
        (shape.n, shape.kv_heads, shape.v_head_dim),
    ]
    return [jnp.asarray(rng.standard_normal((shape.batch, *s)), shape.dtype) for s in sizes]


def inputs_of(spec: pd.Spec, n: int, heads: int, head_dim: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    counts = centroid_counts([spec.module.main])
    return {
        name: jnp.asarray(
            np.sort(rng.integers(0, 4, n))
            if kind == "token"
            else rng.standard_normal((heads, counts[name], head_dim), np.float32)
        )
        for name, kind in spec.module.inputs.items()
    }


def parse(text: str) -> pd.Spec:
    names = re.findall(r"same\((\w+)\)", text)
    declared = "".join(f"input {name}: token\n" for name in names)
    if "=mu)" in text:
        declared += "input mu: centroids\n"
    return pd.parse(f"{declared}pattern main = {text}")


def compiled(spec: pd.Spec | str, backend: str, blocks: tuple[int, int] | None = (16, 16)) -> Any:
    """The attention function, where the backend has a device or an interpreter in its place."""
    attention = pd.compile(spec, backend=backend, block_sizes=blocks)
    return attention.on(INTERPRETED_TPU) if backend == "pallas_tpu" else attention


def _refuse_or_go_on(attention: Any, shape: Shape, has_bias: bool) -> None:
    """Skip what the backend says it does not take."""
    plan = attention.plan(shape.n, shape.n_q, num_heads=shape.heads)
    sizes = (shape.batch, shape.heads, shape.kv_heads, shape.head_dim, shape.v_head_dim)
    target = Target("tpu", shape.dtype, *sizes, has_bias=has_bias, interpret=True, chip="interpreted")
    ((_, refusal),) = attention.asked(plan, target)
    if refusal is not None:
        pytest.skip(refusal.reason)


_WANTED: dict[Any, Any] = {}


def compare(text: str, shape: Shape, backend: str, **arguments: Any) -> None:
    """Output, log-sum-exp and every gradient, each against the reference."""
    shape, spec = sized(text, shape), parse(text)
    try:
        spec.bind(shape.n, num_heads=shape.heads)
    except pd.SpecError as error:
        assert error.codes == ("E308",) and shape.n == 1
        pytest.skip("the pattern names a token that one key has not")
    q, k, v = arrays(shape)
    more = inputs_of(spec, shape.n, shape.heads, shape.head_dim)
    if "token" in spec.module.inputs.values() and (shape.n_q or 0) > shape.n:
        pytest.skip("inputs need every query's position among the keys")
    attention = compiled(spec, backend, shape.blocks)
    if backend == "pallas_tpu":
        _refuse_or_go_on(attention, shape, "bias" in arguments)
    floats = {name: x for name, x in arguments.items() if isinstance(x, jax.Array) and x.dtype.kind == "f"}
    fixed = {name: x for name, x in arguments.items() if name not in floats}
    weights = jnp.asarray(np.random.default_rng(2).standard_normal((*q.shape[:3], v.shape[-1])), jnp.float32)

    def scalar(run: Any, wide: bool) -> Any:
        def f(q: jax.Array, k: jax.Array, v: jax.Array, floats: dict[str, jax.Array]) -> Any:
            if wide:
                q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
            out, lse = run(q, k, v, return_lse=True, **floats, **fixed, **more)
            total = jnp.sum(out.astype(jnp.float32) * weights)
            return total + jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0.0)), (out, lse)

        return jax.jit(jax.value_and_grad(f, (0, 1, 2, 3), has_aux=True))(q, k, v, floats)

    (_, (out, lse)), grads = scalar(attention, wide=False)
    key = (text, shape, *((name, np.asarray(x).tobytes()) for name, x in arguments.items()))
    if key not in _WANTED:  # the backends share the reference's answers, which take the longest
        _WANTED[key] = scalar(lambda *a, **kw: pd.reference(spec, *a, **kw), wide=True)
    (_, (want, want_lse)), want_grads = _WANTED[key]
    assert out.dtype == q.dtype and out.shape == want.shape and lse.shape == q.shape[:3]
    tolerance = 2e-5 if shape.dtype == "float32" else 3e-2
    np.testing.assert_allclose(out.astype(np.float32), want, atol=tolerance)
    np.testing.assert_allclose(lse, want_lse, atol=tolerance)
    for got, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        got, expected = np.asarray(got, np.float32), np.asarray(expected, np.float32)
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, atol=tolerance * max(1.0, float(np.abs(expected).max())))


def supported(text: str, backend: str) -> bool:
    return backend == "xla" or text not in CHOSEN


@pytest.mark.parametrize(
    "text,backend",
    [
        pytest.param(t, b, marks=() if t in FIRST + COMBINED[:5] or b != "xla" else pytest.mark.slow)
        for b in BACKENDS
        for t in EXAMPLES + COMBINED
        if supported(t, b)
    ],
)
def test_pattern(text: str, backend: str) -> None:
    compare(text, SHAPES["ragged"], backend)


def in_shapes() -> Iterator[Any]:
    """Every pattern in two of the other shapes, in turn; all of them in the exhaustive run."""
    others = [s for s in SHAPES if s != "ragged"]
    for i, text in enumerate(EXAMPLES + COMBINED):
        for j, shape in enumerate(others):
            mark = pytest.mark.slow if (i + j) % len(others) < 2 else pytest.mark.exhaustive
            yield from (pytest.param(text, shape, b, marks=mark) for b in BACKENDS if supported(text, b))


@pytest.mark.parametrize("text,shape,backend", [*in_shapes()])
def test_pattern_in_every_shape(text: str, shape: str, backend: str) -> None:
    compare(text, SHAPES[shape], backend)


ARGUMENTS: dict[str, Any] = {
    "scale": lambda s: {"scale": 0.7},
    "traced scale": lambda s: {"scale": jnp.float32(0.7)},
    "softcap": lambda s: {"softcap": 1.5},
    "sinks": lambda s: {"sinks": jnp.linspace(-1, 1, s.heads)},
    "alibi": lambda s: {"alibi_slopes": jnp.linspace(0.01, 0.3, s.heads)},
    "bias": lambda s: {"bias": _bias(s, s.batch, s.heads)},
    "shared bias": lambda s: {"bias": _bias(s, 1, 1)},
    "lengths": lambda s: {"kv_lengths": jnp.asarray([s.n, s.n // 3][: s.batch])},
    "no keys": lambda s: {"kv_lengths": jnp.asarray([0, s.n][: s.batch])},
    "offset": lambda s: {"q_offset": 3},
    "traced offset": lambda s: {"q_offset": jnp.int32(3)},
}

LIKE_OTHERS = ("scale", "shared bias", "offset")


def _bias(s: Shape, batch: int, heads: int) -> jax.Array:
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.standard_normal((batch, heads, s.n_q or s.n, s.n)), jnp.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "argument",
    [pytest.param(a, marks=pytest.mark.slow if a in LIKE_OTHERS else ()) for a in ARGUMENTS],
)
@pytest.mark.parametrize(
    "text",
    [
        COMBINED[0],
        pytest.param(COMBINED[4], marks=pytest.mark.slow),
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param('hierarchical(3, reduce="max", weight="one") & local(30)', marks=pytest.mark.slow),
    ],
)
def test_argument(text: str, argument: str, backend: str) -> None:
    shape = Shape(n=53, n_q=31, batch=2)
    compare(text, shape, backend, **ARGUMENTS[argument](shape))


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_arguments_at_once(backend: str) -> None:
    shape, every = Shape(n=53, n_q=31, batch=2), {}
    for name in ("scale", "softcap", "sinks", "alibi", "bias", "lengths", "traced offset"):
        every |= ARGUMENTS[name](shape)
    compare(COMBINED[0], shape, backend, **every)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_transformations(backend: str) -> None:
    """jit, vmap, checkpoint and scan around it change nothing; unbatched arrays work."""
    text = COMBINED[0] if backend != "pallas_tpu" else COMBINED[1]
    attention = compiled(text, backend)
    q, k, v = arrays(Shape(n=40, batch=3))
    want = pd.reference(text, q, k, v)
    close: dict[str, Any] = {"atol": 2e-5}
    np.testing.assert_allclose(jax.jit(attention)(q, k, v), want, **close)
    np.testing.assert_allclose(jax.vmap(attention)(q, k, v), want, **close)
    np.testing.assert_allclose(attention(q[0], k[0], v[0]), want[0], **close)
    _, scanned = jax.lax.scan(lambda c, x: (c, attention(*x)), 0, (q, k, v))
    np.testing.assert_allclose(scanned, want, **close)

    def total(f: Any) -> Any:
        return jax.grad(lambda q, k, v: jnp.sum(f(q, k, v) ** 2), (0, 1, 2))(q, k, v)

    want_grads = total(lambda *a: pd.reference(text, *a))
    for f in (attention, jax.checkpoint(attention), jax.vmap(attention), jax.jit(attention)):
        for got, expected in zip(total(f), want_grads, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_time_inputs_do_not_recompile(backend: str) -> None:
    """Ids are operands: new ones need no new trace, alone or in a batch."""
    spec = pd.parse("input doc: token\npattern main = causal & same(doc)")
    attention, traces = compiled(spec, backend), []

    @jax.jit
    def run(q, k, v, doc):
        traces.append(1)
        return attention(q, k, v, doc=doc)

    q, k, v = arrays(Shape(n=50, batch=2))
    for seed in range(3):
        doc = jnp.asarray(np.sort(np.random.default_rng(seed).integers(0, 5, (2, 50)), axis=1))
        np.testing.assert_allclose(run(q, k, v, doc), pd.reference(spec, q, k, v, doc=doc), atol=2e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_one_query_of_a_batch_of_documents(backend: str) -> None:
    """The query's position is then a constant of the plan; its label is not."""
    spec = pd.parse("input doc: token\npattern main = same(doc) & (butterfly(3) | hierarchical(4))")
    q, k, v = arrays(Shape(n=40, n_q=1, batch=2))
    doc = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 40)))
    got = pd.compile(spec, backend=backend)(q, k, v, doc=doc)
    np.testing.assert_allclose(got, pd.reference(spec, q, k, v, doc=doc), atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_mixture_of_branches(backend: str) -> None:
    spec = pd.mix(pd.local(4), pd.causal & pd.hierarchical(4), pd.strided(5))
    q, k, v = arrays(Shape(n=40, batch=2))
    gates = jnp.asarray(np.random.default_rng(4).uniform(size=(2, 40, 4, 3)), jnp.float32)
    attention = pd.compile(spec, backend=backend, block_sizes=(16, 16))
    np.testing.assert_allclose(
        attention(q, k, v, gates=gates), pd.reference(spec, q, k, v, gates=gates), atol=2e-5
    )
    alone = [pd.reference(s, q, k, v) for s in ("local(4)", "causal & hierarchical(4)", "strided(5)")]
    want = sum(gates[..., i, None] * o for i, o in enumerate(alone))
    np.testing.assert_allclose(attention(q, k, v, gates=gates), want, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_head_with_fewer_branches_has_nothing_in_the_others(backend: str) -> None:
    spec = pd.heads({0: pd.mix(pd.local(4), pd.causal), "_": pd.strided(5)})
    q, k, v = arrays(Shape(n=20))
    gates = jnp.asarray(np.random.default_rng(4).uniform(size=(*q.shape[:3], 2)), jnp.float32)
    got = compiled(spec, backend, None)(q, k, v, gates=gates)
    first, second, rest = (pd.reference(s, q, k, v) for s in ("local(4)", "causal", "strided(5)"))
    want = gates[..., 0, None] * rest
    want = want.at[:, :, 0].set((gates[..., 0, None] * first + gates[..., 1, None] * second)[:, :, 0])
    np.testing.assert_allclose(got, want, atol=2e-5)
