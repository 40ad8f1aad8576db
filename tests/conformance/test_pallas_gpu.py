"""The GPU backend: its tables and predicates anywhere; its kernels where there is a Hopper GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends import Target
from patterndsl.backends import pallas_gpu as gpu
from patterndsl.backends.pallas.predicate import Frame, Lanes, keep
from patterndsl.backends.pallas.tables import Tables, tables
from patterndsl.plan.cost import Workload
from patterndsl.plan.plan import Part, Plan

HOPPER = pytest.mark.skipif(gpu.unavailable(jax.default_backend()) is not None, reason="no Hopper GPU")
DOCUMENTS = "input doc: token\npattern main = causal & same(doc)"


# -- tables and predicates, without a device ---------------------------------------------------------------


def kept(plan: Plan, part: Part, found: Tables, inputs: dict[str, Any], by_column: bool) -> np.ndarray:
    """The pairs that a kernel keeps which walks the tables, [n_q, n]."""
    (source,) = part.sources
    index = [
        np.pad(np.arange(size) if order is None else order, (0, 256), constant_values=-1)
        for order, size in ((part.layout.queries, plan.n_q), (part.layout.tokens, plan.n))
    ]
    mask = np.zeros((plan.n_q, plan.n), bool)
    for tile, begin, full, count in found.rows:
        for i, block in enumerate(found.blocks[begin : begin + count]):
            places = [(tile, found.tile), (block, found.block)]
            (a, rows), (b, columns) = reversed(places) if by_column else places
            q, k = index[0][a * rows :][:rows], index[1][b * columns :][:columns]
            pairs = np.ones((len(q), len(k)), bool)
            if i >= full:
                frame = Frame(pairs.shape, lambda value, axes: value)
                at = q + plan.q_offset
                lanes = [Lanes(jnp.asarray(x, jnp.int32), (i,), frame) for i, x in enumerate((at, k))]
                read = {
                    name: tuple(
                        Lanes(jnp.asarray(x[p.clip(0, plan.n - 1)], jnp.int32), (i,), frame)
                        for i, p in enumerate((at, k))
                    )
                    for name, x in inputs.items()
                }
                made = keep(source.term.keep, *lanes, read)
                pairs &= np.asarray(made.wide((0, 1))) if isinstance(made, Lanes) else made
                pairs &= (k >= 0) & (q >= 0)[:, None]
            rows_of, columns_of = np.nonzero(pairs)
            assert not mask[q[rows_of], k[columns_of]].any(), "a pair twice"
            mask[q[rows_of], k[columns_of]] = True
    return mask


SPECS = [
    "causal & (local(20) | global(tokens=[0, 70]))",
    "local(9) | strided(7)",
    "causal & dilated(40, 3)",
    "where(q, k: (q - k) % 5 < 2 and min(q, k) // 3 % 2 == 0)",
    "neighborhood([13, 17], 5)",
    DOCUMENTS,
    "rows([5, -1])",
]


@pytest.mark.parametrize("spec", SPECS)
def test_tables_are_the_pattern(spec: str) -> None:
    """By rows and by columns, in whatever order the plan sees queries and keys."""
    for n, n_q in ((221, 221), (221, 90)):
        attention = pd.compile(spec)
        inputs = {name: np.arange(n) // 50 for name in attention.spec.inputs}
        plan = attention.plan(n, n_q)
        wanted = pd.parse(spec).mask(n, n_q, inputs=inputs)
        parts = [p for p in plan.groups[0].branches[0].parts if gpu._visited(p)]
        for tile, block in ((128, 128), (64, 32)):
            for by_column in (False, True):
                found = [tables(p, n_q, tile, block)[by_column] for p in parts]
                each = [kept(plan, p, t, inputs, by_column) for p, t in zip(parts, found, strict=True)]
                np.testing.assert_array_equal(np.sum(each, axis=0), wanted)
                for p, t in zip(parts, found, strict=True):
                    assert t.visits <= gpu.cells(p, n_q, tile, block)


def test_a_window_is_mostly_full_tiles() -> None:
    attention = pd.compile("causal & local(1024)", backend="pallas_gpu")
    (part,) = attention.plan(4096).groups[0].branches[0].parts
    rows = tables(part, 4096, 128, 128)[0].rows
    assert rows[:, 2].max() == 7 and rows[:, 3].max() == 9  # the diagonal and the far end are partial
    assert tables(part, 4096, 128, 128)[0].rows is rows  # another trace finds the same
    told = attention.plan(4096).explain()
    assert "the tiles of pallas_gpu are of one size" in told and "block_sizes" not in told


TARGET = Target("gpu", "bfloat16", 1, 2, 1, 64, 64)
REFUSED = [
    ("causal", {"dtype": "float32"}, "computes in bfloat16 and float16, not float32"),
    ("causal", {"head_dim": 192}, "heads are of 128 at most, not 192"),
    ("causal", {"v_head_dim": 129}, "at most, not 129"),
    ("causal", {"has_bias": True}, "no bias"),
    ("local(3) | pool(4)", {}, "summaries"),
    ("causal + local(3)", {}, "counts every key once"),
    ("select(2, 8)", {}, "chosen from q and k"),
    ("butterfly", {}, "a predicate has `popcount`"),
]


@pytest.mark.parametrize(("spec", "changes", "reason"), REFUSED)
def test_what_is_refused(spec: str, changes: dict[str, Any], reason: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "unavailable", lambda platform, chip=None: None)
    plan = pd.compile(spec).plan(64, num_heads=2)
    found = gpu.BACKEND.supports(plan, dataclasses.replace(TARGET, **changes))
    assert found is not None and reason in found.reason and found.advice == "use backend='xla'"


def test_what_it_refuses_is_planned_for_xla(monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "unavailable", lambda platform, chip=None: None)
    mine, other = (Workload(1, 2, 2, d, d, 2, "gpu", "pallas_gpu") for d in (64, 256))
    for spec, workload, backend in (
        ("causal", mine, "pallas_gpu"),
        ("causal & select(2, 64)", mine, "xla"),
        ("local(64) | pool(64)", mine, "xla"),
        ("causal", other, "xla"),
    ):
        wanted = dataclasses.replace(workload, backend=backend)
        found, alone = (
            [(p.block_q, p.layout.name) for p in plan.groups[0].branches[0].parts]
            for plan in (
                pd.compile(spec).plan(4096, num_heads=2, workload=workload),
                pd.compile(spec, backend=backend).plan(4096, num_heads=2, workload=wanted),
            )
        )
        assert found == alone


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="asks for a GPU where there is none")
def test_without_a_gpu_it_is_refused() -> None:
    q = jnp.zeros((1, 64, 1, 64), jnp.bfloat16)
    with pytest.raises(pd.SpecError, match="runs on GPUs, not on") as caught:
        pd.compile("causal", backend="pallas_gpu")(q, q, q)
    assert caught.value.codes == ("E501",)


# -- kernels, on a device --------------------------------------------------------------------------------

SHAPES = {
    "square": {"n": 333, "heads": 4, "kv_heads": 2, "batch": 2},
    "short queries": {"n": 517, "n_q": 130},
    "more queries than keys": {"n": 70, "n_q": 300},
    "one": {"n": 1},
    "odd heads": {"n": 260, "head_dim": 40, "v_dim": 72},
    "128, one key head": {"n": 700, "head_dim": 128, "heads": 4, "kv_heads": 1, "dtype": "float16"},
}
ON_DEVICE = [
    "causal",
    "full",
    "causal & (local(100) | global(tokens=[0, 200]))",
    "causal & strided(16)",
    "local(30) | dilated(200, 7)",
    "where(q, k: (q + 2 * k) % 5 < 2)",
    "rows([5, 200])",
    "heads { 0 => local(40); _ => causal & strided(9) }",
]


def operands(
    n: int, n_q: int | None = None, heads: int = 2, kv_heads: int = 2, head_dim: int = 64,
    dtype: str = "bfloat16", batch: int = 1, v_dim: int | None = None,
) -> list[jax.Array]:  # fmt: skip
    rng = np.random.default_rng(0)
    v_dim = v_dim or head_dim
    shapes = (n_q or n, heads, head_dim), (n, kv_heads, head_dim), (n, kv_heads, v_dim)
    return [jnp.asarray(rng.standard_normal((batch, *s)), dtype) for s in shapes]


def close(found: Any, wanted: Any, scale: float) -> None:
    """As near as numbers of 8 bits are (11 in float16)."""
    found, wanted = (np.asarray(x, np.float32) for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, atol=scale * max(1.0, np.abs(wanted).max()))


def compare(spec: Any, x: list[jax.Array], slopes: Any = None, **arguments: Any) -> None:
    """Output, log-sum-exp and gradients, that of ``slopes`` (ALiBi's) among them."""
    attention = pd.compile(spec, backend="pallas_gpu")
    exact = [a.astype(jnp.float32) for a in x]
    rng = np.random.default_rng(1)

    def vjp(attend: Any, x: list[jax.Array]) -> Any:
        def call(q: Any, k: Any, v: Any, slopes: Any) -> Any:
            return attend(q, k, v, alibi_slopes=slopes, return_lse=True, **arguments)

        return jax.vjp(call, *x, slopes)

    out, back = vjp(attention, x)
    wanted, back_of_reference = vjp(lambda *x, **more: pd.reference(spec, *x, **more), exact)
    some = jnp.isfinite(wanted[1])
    cotangents = [jnp.asarray(rng.standard_normal(a.shape), jnp.float32) for a in wanted]
    cotangents[1] = jnp.where(some, cotangents[1], 0)
    np.testing.assert_allclose(out[1], wanted[1], atol=2e-3)
    close(out[0], wanted[0], 1e-2)
    found = back((cotangents[0].astype(out[0].dtype), cotangents[1]))
    for a, b in zip(found, back_of_reference(tuple(cotangents)), strict=True):
        if b is not None:
            close(a, b, 1.5e-2)


@HOPPER
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", ON_DEVICE)
def test_kernels(spec: str, shape: str) -> None:
    if "tokens" in spec or "rows" in spec:
        pytest.skip("names tokens that are not there") if SHAPES[shape]["n"] < 201 else None
    compare(spec, operands(**SHAPES[shape]))


@HOPPER
def test_arguments_and_inputs() -> None:
    x = operands(300, heads=4, batch=2)
    lengths = np.asarray([300, 111], np.int32)
    doc = np.sort(np.random.default_rng(2).integers(0, 5, (2, 300)), axis=1)
    compare(DOCUMENTS, x, doc=doc, softcap=5.0, scale=-0.3)
    compare("causal & strided(7) & local(200)", x, kv_lengths=lengths, sinks=np.ones(4, np.float32))
    compare("causal & local(90)", operands(300, 40), q_offset=jnp.int32(100))
    slopes = jnp.asarray([0.5, 0.01, -0.02, 0], jnp.float32)
    compare("causal & (local(100) | strided(16))", operands(333, heads=4, batch=2), slopes, softcap=5.0)
    gates = np.random.default_rng(3).random((2, 300, 4, 2), np.float32)
    attention = pd.compile("mix(causal & local(30), causal)", backend="pallas_gpu")
    wanted = pd.reference("mix(causal & local(30), causal)", *(a.astype(jnp.float32) for a in x), gates=gates)
    close(attention(*x, gates=gates), wanted, 1e-2)


@HOPPER
def test_auto_takes_it_under_transformations(monkeypatch: Any) -> None:
    spec, x = "causal & local(50)", operands(200, batch=3)
    attention = pd.compile(spec)
    wanted = pd.reference(spec, *(a.astype(jnp.float32) for a in x))
    lowered, lower = [], gpu.BACKEND.lower
    monkeypatch.setattr(gpu.BACKEND, "lower", lambda *of: lowered.append(of) or lower(*of))
    close(jax.vmap(attention)(*x), wanted, 1e-2)
    first, second = (
        jax.jit(jax.grad(lambda q: attention(q, *x[1:]).astype(jnp.float32).sum()))(x[0]) for _ in "12"
    )
    np.testing.assert_array_equal(first, second)
    assert lowered
