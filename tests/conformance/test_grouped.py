"""Parts with groups of keys that queries name: whatever was chosen, the answer is the reference's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends.xla import schedule as scheduling
from patterndsl.backends.xla.logits import Settings
from patterndsl.backends.xla.schedule import GroupedPass, Integers, schedule
from patterndsl.ir.expr import TRUE, K, Q, var
from patterndsl.ir.nodes import Fact, fact
from patterndsl.ir.normal import TOKENS, Term
from patterndsl.ir.resolve import at_length
from patterndsl.patterns import builtins
from patterndsl.plan import build, choose
from patterndsl.plan.choose import GROUPED, Shape, in_tiles, structures
from patterndsl.plan.cost import Workload
from patterndsl.plan.plan import Grouping, Source
from patterndsl.plan.rates import rates_of

BACKENDS = ("xla", "cpu_native")
SLOW = pytest.mark.slow
MOBA = "causal & (select(2, 8, among=causal - chunked(8)) | chunked(8))"
REFORMER = "causal & (lsh(8, rounds=2, seed=3) | self)"
ROUTING = "input mu: centroids\npattern main = "


@pytest.fixture(autouse=True)
def no_query_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "FEW_QUERIES", 1)
    build.forget_plans()


def grouped(text: str, n: int, n_q: int, blocks: tuple[int, int], backend: str = "xla") -> pd.Attention:
    """The pattern, run by groups."""
    attention = pd.compile(text)
    asked = build.questions(
        at_length(attention.module.main, n), Shape(n, n_q, n - n_q), None, Workload(), rates_of("cpu", "xla")
    )
    given = []
    for question in asked:
        ways = [s for s in structures(question) if any(name == GROUPED for _, name in s)]
        given.append(in_tiles(question, (ways or structures(question))[-1], blocks))
    assert any(part.layout == GROUPED for way in given for part in way), text
    return pd.Attention(attention.spec, None, 0, backend, None, (tuple(given),))


def compare(
    text: str, n: int = 53, n_q: int | None = None, blocks: tuple[int, int] = (8, 8), dtype: str = "float32",
    heads: int = 4, kv_heads: int = 2, backend: str = "xla", **arguments: Any,
) -> None:  # fmt: skip
    """Output, log-sum-exp and every gradient."""
    n_q = n_q or n
    rng = np.random.default_rng(0)
    sizes = [(n_q, heads, 8), (n, kv_heads, 8), (n, kv_heads, 4)]
    q, k, v = (jnp.asarray(rng.standard_normal((2, *s)), dtype) for s in sizes)
    weights = jnp.asarray(rng.standard_normal((2, n_q, heads, 4)), jnp.float32)
    names = ("bias", "alibi_slopes", "sinks")
    floats = {name: x for name, x in arguments.items() if name in names}
    others = {name: x for name, x in arguments.items() if name not in names}

    def both(run: Any, wide: bool) -> Any:
        def f(q: Any, k: Any, v: Any, floats: Any) -> Any:
            if wide:
                q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
            out, lse = run(q, k, v, return_lse=True, **floats, **others)
            return jnp.sum(out * weights) + jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0)), (out, lse)

        return jax.jit(jax.value_and_grad(f, (0, 1, 2, 3), has_aux=True))(q, k, v, floats)

    (_, got), grads = both(grouped(text, n, n_q, blocks, backend), wide=False)
    (_, want), want_grads = both(lambda *a, **kw: pd.reference(text, *a, **kw), wide=True)
    tolerance = 2e-5 if dtype == "float32" else 4e-2
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float32), y, atol=tolerance)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(x, y, atol=tolerance * max(1.0, float(np.abs(y).max())))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "text",
    [
        MOBA,
        pytest.param(REFORMER, marks=SLOW),
        pytest.param("select(20, 2)", marks=SLOW),
        pytest.param("select(3, 16) + local(3)", marks=SLOW),
        pytest.param('causal & select(2, 8, per="block", by="max") | sinks(2)', marks=SLOW),
        pytest.param("lsh(4) & local(9) | columns([0])", marks=SLOW),
        pytest.param('select(2, 4, share="group", by="minmax") | hierarchical(4)', marks=SLOW),
        pytest.param("select(2, 16) & (segments(16, 1) + segments(32, 2))", marks=SLOW),
    ],
)
def test_attention_is_the_reference(text: str, backend: str) -> None:
    compare(text, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "shape",
    [
        {"n": 40, "n_q": 19, "dtype": "bfloat16", "heads": 2, "kv_heads": 1},
        pytest.param({"n": 1}, marks=SLOW),
        pytest.param({"n": 17, "n_q": 30, "blocks": (4, 16)}, marks=SLOW),
        pytest.param({"n": 150, "blocks": (16, 4)}, marks=SLOW),
        pytest.param({"n": 1500, "blocks": (64, 64), "heads": 1, "kv_heads": 1}, marks=SLOW),
    ],
)
@pytest.mark.parametrize("text", ["lsh(4)", pytest.param("select(2, 8) | local(2)", marks=SLOW)])
def test_shapes(text: str, shape: dict[str, Any], backend: str) -> None:
    compare(text, **shape, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("text", "centroids", "shape"),
    [
        ("causal & (cluster(3, 20, centroids=mu) | local(3))", (3, 8), {}),
        pytest.param("cluster(40, 6, centroids=mu)", (4, 40, 8), {"blocks": (4, 16)}, marks=SLOW),
        pytest.param("cluster(33, 5, centroids=mu)", (33, 8), {"n": 40, "n_q": 19}, marks=SLOW),
        pytest.param("cluster(2, 99, centroids=mu) + self", (2, 8), {"n": 17, "n_q": 30}, marks=SLOW),
        pytest.param("cluster(3, 7, centroids=mu) & local(9)", (4, 3, 8), {"dtype": "bfloat16"}, marks=SLOW),
        pytest.param("cluster(2, 1, centroids=mu) | hierarchical(4)", (2, 8), {"n": 1}, marks=SLOW),
    ],
)
def test_groups_that_take_queries_and_keys(
    text: str, centroids: tuple[int, ...], shape: dict[str, Any], backend: str
) -> None:
    """Also where a pair is in several groups, and a vector in none."""
    mu = jax.random.normal(jax.random.key(1), centroids)
    compare(ROUTING + text, mu=mu, **shape, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@SLOW
@pytest.mark.parametrize("text", [MOBA, "causal & lsh(4)", f"{ROUTING}causal & cluster(40, 9, centroids=mu)"])
@pytest.mark.parametrize("shared", [False, True])
def test_all_arguments_at_once(text: str, shared: bool, backend: str) -> None:
    rng = np.random.default_rng(3)
    bias = jnp.asarray(rng.standard_normal((1, 1, 53, 53) if shared else (2, 4, 53, 53)), jnp.float32)
    centroids = {"mu": jax.random.normal(jax.random.key(1), (40, 8))} if ROUTING in text else {}
    compare(
        text, **centroids, scale=0.7, softcap=1.5, alibi_slopes=jnp.linspace(0.01, 0.3, 4), bias=bias,
        sinks=jnp.linspace(-1, 1, 4), kv_lengths=jnp.asarray([40, 0]), backend=backend,
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [2, pytest.param(1, marks=SLOW)])
def test_vmap_of_gradients(heads: int, backend: str) -> None:
    """What is mapped over becomes more sequences; what is not has a gradient for each all the same, also
    where the sequences of a batch share it."""
    attention = grouped("causal & lsh(4)", 30, 30, (8, 8), backend)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((3, 2, 30, h, 8)), jnp.float32) for h in (2, 1, 1))
    bias = jnp.asarray(rng.standard_normal((1, heads, 30, 30)), jnp.float32)

    def total(run: Any) -> Any:
        def f(q: Any, k: Any, bias: Any) -> Any:
            return jnp.sum(jnp.sin(run(q, k, v[0], bias=bias)))

        return jax.jit(jax.vmap(jax.grad(f, (0, 1, 2)), (0, 0, None)))(q, k, bias)

    got, want = total(attention), total(lambda *a, **kw: pd.reference("causal & lsh(4)", *a, **kw))
    for x, y in zip(got, want, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, atol=3e-5)


@SLOW
@pytest.mark.parametrize("text", ["select(2, 8)", "causal & lsh(4)"])
def test_second_derivatives(text: str) -> None:
    """Forward over reverse, as loops of a length known late allow."""
    attention = grouped(text, 12, 12, (8, 8))
    x = jax.random.normal(jax.random.key(0), (12, 1, 4))

    def hessian(run: Any) -> Any:
        return jax.jit(jax.hessian(lambda q: jnp.sum(jnp.sin(run(q, x, x)))))(x)

    np.testing.assert_allclose(
        hessian(attention), hessian(lambda *a: pd.reference(text, *a)), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("text", ["lsh(4)", pytest.param("select(2, 8)", marks=SLOW)])
def test_where_integers_have_64_bits(text: str) -> None:
    with jax.enable_x64(True):
        compare(text, n=20)


def test_batch_of_a_size_known_late() -> None:
    attention = grouped("select(2, 8)", 24, 24, (8, 8))
    (batch,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((batch, 24, h, 8), jnp.float32) for h in (2, 1, 1)]
    made = jax.export.export(jax.jit(attention))(*shapes)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((3, 24, h, 8)), jnp.float32) for h in (2, 1, 1))
    np.testing.assert_allclose(made.call(q, k, v), pd.reference("select(2, 8)", q, k, v), atol=2e-5)


def made_schedule(chosen: np.ndarray, of_keys: np.ndarray, groups: int, block_q: int) -> Any:
    """Of one head, whose queries name groups ``chosen`` [T, choices] of keys in groups ``of_keys`` [n]."""
    pattern = builtins()["lsh"](var("buckets"))
    queries, keys = Fact(pattern, "queries"), Fact(pattern, "keys")
    key = fact(pattern, "keys", K, 0)
    grouping = Grouping(queries, Q, var("i"), chosen.shape[1], key, groups, None)
    n = len(of_keys)
    part = GroupedPass(block_q, 4, Source(TOKENS, Term(TRUE), n), grouping, n, len(chosen))
    zero = jnp.zeros((1, 1, 1), jnp.int32)
    values = tuple(jnp.asarray(x, jnp.int32)[None, None, None] for x in (chosen, of_keys[:, None]))
    integers = Integers(zero, None, {}, values, (zero, zero))
    found = schedule(Settings(n, 1.0, None, (queries, keys)), part, integers, (1, 1, 1))
    return jax.tree.map(lambda x: np.asarray(x)[0, 0, 0], found)


@pytest.mark.parametrize("together", [True, False])
def test_schedule(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups named twice count once, numbers that no group has never; also where group and index are too
    large for one number."""
    if not together:
        monkeypatch.setattr(scheduling, "SORT_LIMIT", 0)
    rng = np.random.default_rng(0)
    chosen, of_keys = rng.integers(-2, 8, (20, 3)), rng.integers(0, 7, 15)
    s = made_schedule(chosen, of_keys, 6, 4)
    seen = []
    for g in s.visited[: s.number]:
        mine = s.queries[s.query_start[g] :][: s.query_count[g]]
        keys = s.keys[s.key_start[g] :][: s.key_count[g]]
        assert mine.size and keys.size
        seen += [(int(g), int(q), int(k)) for q in mine if q < 20 for k in keys]
    want = {
        (g, q, k)
        for g in range(6)
        for q in range(20)
        for k in range(15)
        if g in chosen[q] and of_keys[k] == g
    }
    assert len(seen) == len(set(seen)) and set(seen) == want


@SLOW
def test_memory_is_linear_in_the_length() -> None:
    """Four times the length takes about four times the temporary memory, forward and backward."""

    def size(n: int) -> int:
        attention = grouped("select(2, 512) | lsh(16)", n, n, (64, 64))
        x = jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)
        f = jax.grad(lambda q, k, v: jnp.sum(attention(q, k, v)), (0, 1, 2))
        return jax.jit(f).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    assert size(8192) < 5 * size(2048)
