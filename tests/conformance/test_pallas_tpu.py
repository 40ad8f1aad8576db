"""The TPU backend's kernels in Pallas' interpreter, which takes some 10 ms for a step of the grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends import Target
from patterndsl.backends import pallas_tpu as tpu
from patterndsl.backends.pallas.tables import Tables
from patterndsl.backends.pallas_tpu.steps import FIRST, FULL, KINDS, LAST, PARTIAL, steps
from patterndsl.devices import INTERPRETED_TPU
from patterndsl.plan.cost import Workload

DOCUMENTS = "input doc: token\npattern main = causal & same(doc)"
SMALL = (128, 128)
"""The smallest tile, so that there are several where little is computed."""


def operands(
    n: int, n_q: int | None = None, heads: int = 2, kv_heads: int = 1, head_dim: int = 32,
    v_head_dim: int | None = None, dtype: str = "float32", batch: int = 1,
) -> list[jax.Array]:  # fmt: skip
    rng = np.random.default_rng(0)
    sizes = (n_q or n, heads, head_dim), (n, kv_heads, head_dim), (n, kv_heads, v_head_dim or head_dim)
    return [jnp.asarray(rng.standard_normal((batch, *size)), dtype) for size in sizes]


def compare(spec: Any, x: list[jax.Array], **arguments: Any) -> Any:
    """Output, log-sum-exp and every gradient, each against the reference; the gradients."""
    attention = pd.compile(spec, backend="pallas_tpu").on(INTERPRETED_TPU)
    floats = {name: a for name, a in arguments.items() if getattr(a, "dtype", np.int32) == jnp.float32}
    fixed = {name: a for name, a in arguments.items() if name not in floats}
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((*x[0].shape[:3], x[2].shape[3] + 1)).astype(np.float32)

    def total(run: Any, *given: Any) -> Any:
        *x, floats = given
        out, lse = run(*x, return_lse=True, **floats, **fixed)
        sums = jnp.sum(out * weights[..., 1:]) + jnp.sum(
            jnp.where(jnp.isfinite(lse), lse * weights[..., 0], 0)
        )
        return sums, (out, lse)

    exact = [a.astype(jnp.float32) for a in x]
    f = jax.value_and_grad(total, tuple(range(1, 5)), has_aux=True)
    (_, found), grads = f(attention, *x, floats)
    (_, wanted), wanted_grads = f(lambda *a, **kw: pd.reference(spec, *a, **kw), *exact, floats)
    near = 2e-5 if x[0].dtype == jnp.float32 else 2e-2
    for got, want in zip(
        (*found, *jax.tree.leaves(grads)), (*wanted, *jax.tree.leaves(wanted_grads)), strict=True
    ):
        got, want = (np.asarray(a, np.float32) for a in (got, want))
        some = np.isfinite(want)
        np.testing.assert_array_equal(np.isfinite(got), some)
        scale = max(1.0, float(np.abs(want[some]).max(initial=0)))
        np.testing.assert_allclose(got[some], want[some], atol=near * scale)
    return grads


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu.BACKEND, "tiles", SMALL)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "full and partial tiles": ("causal & local(200)", {"n": 400}, {}),
    "layouts, bfloat16": (
        "causal & (local(100) | strided(16))",
        {"n": 300, "heads": 4, "kv_heads": 2, "dtype": "bfloat16"},
        {},
    ),
    "documents, softcap, negative scale": (
        DOCUMENTS,
        {"n": 200, "batch": 2},
        {"doc": np.arange(400).reshape(2, 200) // 70, "softcap": 5.0, "scale": -0.3},
    ),
    "empty rows, wide values": ("rows([5, 290])", {"n": 300, "head_dim": 16, "v_head_dim": 40}, {}),
    "lengths, run-time offset": (
        "causal & local(90)",
        {"n": 300, "n_q": 140, "batch": 2},
        {"q_offset": jnp.int32(100), "kv_lengths": jnp.asarray([300, 111])},
    ),
    "ALiBi, lengths": (
        "causal & local(150)",
        {"n": 260, "heads": 3, "kv_heads": 3, "batch": 2},
        {
            "alibi_slopes": jnp.asarray([0.1, 0.02, 0.3]),
            "softcap": 3.0,
            "kv_lengths": jnp.asarray([260, 0]),
        },
    ),
    "more heads than a tile takes": (
        "where(q, k: (q - k) % 5 < 2 and (q // 3 % 2 == 0 or k < 7))",
        {"n": 90, "n_q": 150, "heads": 10},
        {},
    ),
    "reordered lengths": (
        "strided(7)",
        {"n": 300, "batch": 2},
        {"kv_lengths": jnp.asarray([300, 40])},
    ),
    "heads apart": ("heads { 0 => local(40); _ => causal & strided(9) }", {"n": 140, "heads": 4}, {}),
}  # fmt: skip


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", CASES)
def test_kernels(case: str) -> None:
    spec, shape, arguments = CASES[case]
    compare(spec, operands(**shape), **arguments)


def test_the_same_call_gives_the_same_bits() -> None:
    x = operands(300)
    attention = pd.compile("causal", backend="pallas_tpu").on(INTERPRETED_TPU)
    first, second = (jax.grad(lambda *x: attention(*x).sum(), (0, 1, 2))(*x) for _ in "12")
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("small")
def test_races(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """The interpreter that keeps track of memory as a TPU has it: two cores, copies that run meanwhile."""
    from jax.experimental.pallas import tpu as pltpu

    monkeypatch.setattr(tpu.BACKEND, "interpreter", pltpu.InterpretParams(detect_races=True))
    compare("causal & local(100)", operands(200), kv_lengths=jnp.asarray([150]))
    assert "RACE" not in capfd.readouterr().out.upper()


def test_steps_are_the_tables() -> None:
    """Each tile once, rows without tiles too, and lists of about the same length."""
    count = np.asarray([5, 3, 3, 1, 0])
    begin = np.cumsum(count) - count
    rows = np.stack([np.asarray([4, 0, 2, 1, 3]), begin, count // 2, count], axis=1).astype(np.int32)
    table = Tables(rows, np.arange(12, dtype=np.int32) + 50, 128, 128)
    for lists in (1, 2):
        made = steps(table, lists)
        assert made.lists == lists and (made.full, made.partial) == (4, 8)
        assert made.length <= 13 // lists + 1 and len(made.rows) == lists * made.length
        kinds, blocks = made.blocks % KINDS, made.blocks // KINDS
        visited = kinds & (FULL | PARTIAL) > 0
        assert sorted(blocks[visited]) == [*range(50, 62)]
        for row, first, full, number in rows:
            mine = np.flatnonzero(made.rows == row)
            its = mine[kinds[mine] > 0]
            assert [*blocks[its][:number]] == [*range(50 + first, 50 + first + number)]
            assert (kinds[its] & FULL > 0).sum() == full
            assert kinds[its[0]] & FIRST and kinds[its[-1]] & LAST
            assert (kinds[its] & FIRST > 0).sum() == (kinds[its] & LAST > 0).sum() == 1


TARGET = Target("tpu", "bfloat16", 1, 2, 1, 64, 64, chip="v5e")
REFUSED = [
    ("causal", {"dtype": "float16"}, "computes in float32 and bfloat16, not float16"),
    ("causal", {"head_dim": 320}, "heads are of 256 at most"),
    ("causal", {"has_bias": True}, "no bias"),
    ("causal", {"chip": "v4"}, "this one is v4"),
    ("causal", {"platform": "gpu"}, "runs on TPUs, not on gpu"),
    ("local(3) | pool(4)", {}, "summaries"),
    ("causal + local(3)", {}, "counts every key once"),
    ("select(2, 8)", {}, "chosen from q and k"),
    ("butterfly", {}, "a predicate has `popcount`"),
]


@pytest.mark.parametrize(("spec", "changes", "reason"), REFUSED)
def test_what_is_refused(spec: str, changes: dict[str, Any], reason: str) -> None:
    plan = pd.compile(spec).plan(64, num_heads=2)
    found = tpu.BACKEND.supports(plan, dataclasses.replace(TARGET, **changes))
    assert found is not None and reason in found.reason and found.advice == "use backend='xla'"


def test_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu, "MOST_STEPS", 20)
    plan = pd.compile("causal & local(1024)").plan(2**14, num_heads=2)
    found = tpu.BACKEND.supports(plan, TARGET)
    assert found is not None and "scalar memory holds 20" in found.reason


def test_tiles_are_as_large_as_the_pattern_allows() -> None:
    for spec, size in (("causal", (512, 1024)), ("causal & local(128)", (512, 512))):
        plan = pd.compile(spec).plan(2**13, num_heads=1)
        (part,) = plan.groups[0].branches[0].parts
        assert tpu.choose(plan, part, 1) == size
        packed = tpu.choose(plan, part, 4)
        assert packed[0] * 4 >= 512


def test_auto_takes_it() -> None:
    """And plans for XLA what it is known to refuse."""
    attention = pd.compile("causal & local(50)").on(INTERPRETED_TPU)
    x = operands(100)
    np.testing.assert_allclose(attention(*x), pd.reference("causal & local(50)", *x), atol=2e-5)
    assert "run by pallas_tpu on tpu" in attention.explain()
    workload = Workload(1, 2, 1, 64, 64, 2, "tpu", "pallas_tpu")
    for spec, backend in (("causal", "pallas_tpu"), ("local(64) | pool(64)", "xla")):
        wanted = dataclasses.replace(workload, backend=backend)
        found, alone = (
            [(p.block_q, p.layout.name) for p in plan.groups[0].branches[0].parts]
            for plan in (
                pd.compile(spec).plan(4096, num_heads=2, workload=workload),
                pd.compile(spec, backend=backend).plan(4096, num_heads=2, workload=wanted),
            )
        )
        assert found == alone
