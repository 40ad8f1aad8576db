"""`of="summaries"`: each level of a pyramid made of the level below."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from tests.conformance.structures import weighted
from tests.conformance.test_reference import POOL, attend, operands
from tests.oracles import positions, slots
from tests.oracles.summaries import summary_of_summaries

SLOW = pytest.mark.slow


def later_counts_for_more(vectors: list[Any]) -> Any:
    """What `weighted` is of a list of vectors."""
    return np.average(np.stack(vectors), axis=0, weights=1.0 + np.arange(len(vectors)))


@pytest.mark.parametrize(
    "reduce, levels, causal",
    [
        ("mean", None, False),
        (weighted, 4, True),
        *(
            pytest.param(r, 4 if r == "max" else None, True, marks=SLOW)
            for r in ("mean", "max", "first", "last")
        ),
        pytest.param(weighted, None, False, marks=SLOW),
    ],
)
def test_the_reference_by_definition(reduce: Any, levels: int | None, causal: bool) -> None:
    """Chunks of 2, 6, 18 and, where there are four levels, of all 23 tokens, of which one sequence has 14."""
    n, n_q, factor, leaf, lengths = 23, 19, 3, 2, (23, 14)
    spec = pd.hierarchical(factor, leaf=leaf, levels=levels, reduce=reduce, of="summaries")
    spec = pd.causal & spec if causal else spec
    q, k, v = operands(n, n_q)
    out, lse = pd.reference(spec, q, k, v, kv_lengths=np.asarray(lengths, np.int32), return_lse=True)
    of_list = later_counts_for_more if callable(reduce) else lambda x: POOL[reduce](np.stack(x))
    counts, table = slots(positions(n, n_q), n, factor, leaf=leaf, levels=levels, causal=causal)
    for b, length in enumerate(lengths):

        def vector(x: Any, level: int, start: int, stop: int, length: int = length) -> Any:
            return summary_of_summaries(x, length, level, start, of_list, factor, leaf)

        there = [i for i, (_, start, _) in enumerate(table) if start < length]
        real = [(level, start, min(stop, length)) for level, start, stop in (table[i] for i in there)]
        one = (x[b : b + 1] for x in (q, k, v))
        expected, expected_lse = attend(counts[:, there], real, *one, reduce=vector)
        np.testing.assert_allclose(out[b], expected[0], atol=2e-6)
        np.testing.assert_allclose(lse[b], expected_lse[0], atol=4e-6)


def learned(weights: jax.Array, seen: list[Any]) -> Any:
    """Attentive pooling with a vector of weights [K, H] for each key head."""

    def reduce(x: jax.Array, mask: jax.Array) -> jax.Array:
        seen.append(x.shape)
        assert mask.shape[1:] == x.shape[1:3] and mask.shape[0] in (1, len(x))
        scores = jnp.einsum("bcmkh,kh->bcmk", x, weights)
        shares = jax.nn.softmax(jnp.where(mask[..., None], scores, -jnp.inf), axis=2)
        return jnp.einsum("bcmk,bcmkh->bckh", shares, x)

    return reduce


@pytest.mark.parametrize("backend", ["xla", pytest.param("cpu_native", marks=SLOW)])
@pytest.mark.parametrize("ragged", [True, pytest.param(False, marks=SLOW)])
def test_gradients_through_a_learned_pooling(backend: str, ragged: bool) -> None:
    q, k, v = operands(15, 13)
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((2, 8)).astype(np.float32), rng.standard_normal((2, 5)).astype(np.float32)
    # One sequence has fewer tokens than a chunk of the highest level.
    given: dict[str, Any] = {"kv_lengths": np.asarray([15, 3], np.int32)} if ragged else {}
    seen: list[Any] = []

    def total(run: Any) -> Any:
        def f(q: Any, k: Any, v: Any, weights: Any) -> Any:
            def reduce(x: Any, mask: Any) -> Any:
                return learned(weights[x.shape[-1] == 5], seen)(x, mask)

            spec = pd.hierarchical(2, window=0, reduce=reduce, of="summaries")
            out = run(spec if ragged else pd.causal & spec)(q, k, v, **given)
            return jnp.sum(jnp.sin(3 * out))

        return jax.jit(jax.value_and_grad(f, (0, 1, 2, 3)))(q, k, v, weights)

    found = total(lambda spec: pd.compile(spec, backend=backend))
    # Each token and each summary is read once: level by level the chunks, and how many each is made of.
    assert {shape[1:3] for shape in seen} == {(8, 2), (4, 2), (2, 2)}
    wanted = total(lambda spec: lambda *x, **kw: pd.reference(spec, *x, **kw))
    assert all(np.abs(x).max() > 0.1 for x in jax.tree.leaves(wanted))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, atol=3e-5 * max(1.0, float(np.abs(y).max())))


def test_no_more_room_than_there_are_tokens() -> None:
    """A chunk of the highest level has room for `factor` summaries, were it not for a large factor."""
    pools = pd.hierarchical(10**9, leaf=2, levels=3, of="summaries").slots(23).pools
    assert {(p.level, p.fan) for p in pools} == {(0, 1), (1, 1), (2, 23), (3, 23)}
    assert {p.fan for p in pd.hierarchical(4, levels=4, of="summaries").slots(23).pools if p.of} == {4}


def test_only_reduce_is_a_function() -> None:
    for name in ("weight", "of"):
        with pytest.raises(pd.SpecError, match=f"`{name}`"):
            pd.hierarchical(4, **{name: lambda x, mask: x[:, :, 0]})
