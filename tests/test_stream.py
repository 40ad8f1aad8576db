"""A sequence computed piece by piece: the answers of one pass, in a state of fixed size."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.horizon import Horizon, horizon
from patterndsl.ir.nodes import Intersection, Module, Node, Union
from patterndsl.spec import Spec
from tests.conformance.structures import weighted
from tests.strategies import nodes

SLOW = pytest.mark.slow
COMPRESSIVE = "import compressive as c pattern main = c.compressive(8, 8, compressed=6, rate=2)"
SPECS = {
    "causal & (local(5) | sinks(2))": Horizon(2, 4, 1, 4),
    COMPRESSIVE: Horizon(0, 24, 8, 8, grain=2),
    "causal & segment_memory(8, 12)": Horizon(0, 16, 8, 16),
    'causal & (local(4) | local(20) & hierarchical(3, 1, 2, 2, reduce="max", of="summaries"))': Horizon(
        0, 18, 6, 3, grain=2, reduce="max"
    ),
    "heads { 0 => causal & dilated(3, 4); _ => causal & chunked(6) }": Horizon(0, 8, 6, 8),
    "mix(causal & local(3), causal & chunked(5, back=1))": Horizon(0, 5, 5, 5),
    "causal & (local(4) + segments(6, 2) | global(tokens=[0, 3]))": Horizon(4, 4, 6, 4),
}
PIECES = ((24, 1, 24, 5, 1, 24), (1, 5, 5, 12, 1, 24, 24, 1, 1, 12))


def arrays(n: int, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal((2, n, h, 8), np.float32)) for h in (4, 2, 2))


def empty(attention: Any, batch: int | None = 2) -> Any:
    return attention.initial_state(batch=batch, num_kv_heads=2, head_dim=8, num_heads=4)


def cut(x: Any, pieces: tuple[int, ...], axis: int = 1) -> list[Any]:
    return jnp.split(x, np.cumsum(pieces)[:-1], axis=axis)


@pytest.mark.parametrize("pieces", [PIECES[0], pytest.param(PIECES[1], marks=SLOW)])
@pytest.mark.parametrize("spec", [s if i < 2 else pytest.param(s, marks=SLOW) for i, s in enumerate(SPECS)])
def test_pieces_of_any_length_give_what_one_pass_gives(spec: str, pieces: tuple[int, ...]) -> None:
    operands, attention = arrays(sum(pieces)), pd.compile(spec)
    rng = np.random.default_rng(1)
    gates = jnp.asarray(rng.random((2, sum(pieces), 4, 2), np.float32)) if "mix" in spec else None
    cotangent = rng.standard_normal(operands[0].shape, np.float32)

    def stream(*whole: Any) -> Any:
        state, found = empty(attention), []
        given = [cut(x, pieces) for x in whole]
        for i, (q, k, v) in enumerate(zip(*given, strict=True)):
            mine = None if gates is None else cut(gates, pieces)[i]
            out, state = attention(q, k, v, state=state, gates=mine)
            found.append(out)
        return jnp.concatenate(found, 1)

    assert horizon(attention.module, 4) == SPECS[spec]
    found, back = jax.vjp(stream, *operands)
    wanted, back_of_whole = jax.vjp(lambda *x: pd.reference(spec, *x, gates=gates), *operands)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    for x, y in zip(back(cotangent), back_of_whole(cotangent), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


@SLOW
def test_summaries_of_summaries_of_ones_own() -> None:
    """A pooling that depends on where in a chunk something is: the state's chunks begin where the sequence's
    do."""
    (q, k, v), found = arrays(79), []
    far = pd.local(40) & pd.hierarchical(2, levels=3, leaf=2, reduce=weighted, of="summaries")
    spec = pd.causal & (pd.local(4) | far)
    attention = pd.compile(spec)
    state = empty(attention)
    for piece in zip(*(cut(x, PIECES[0]) for x in (q, k, v)), strict=True):
        out, state = attention(*piece, state=state)
        found.append(out)
    np.testing.assert_allclose(jnp.concatenate(found, 1), pd.reference(spec, q, k, v), atol=2e-5)


def test_arguments_and_the_log_sum_exp() -> None:
    spec, (q, k, v) = "causal & local(5)", arrays(30)
    attention, rng = pd.compile(spec), np.random.default_rng(2)
    given = {"sinks": rng.random(4, np.float32), "alibi_slopes": rng.random(4, np.float32), "scale": 0.2}
    state, found = empty(attention, None), []
    for piece in zip(*(cut(x[0], (12, 12, 6), 0) for x in (q, k, v)), strict=True):
        result, state = attention(*piece, state=state, return_lse=True, softcap=4.0, **given)
        found.append(result)
    wanted = pd.reference(spec, q[0], k[0], v[0], return_lse=True, softcap=4.0, **given)
    for i, x in enumerate(wanted):
        np.testing.assert_allclose(np.concatenate([r[i] for r in found]), x, atol=2e-5)


WITH_INPUTS = {
    "input doc: token pattern main = causal & (local(5) | sinks(2)) & same(doc)": "doc",
    "input doc: token input far: token pattern main = causal & "
    "(segment_memory(8, 12) & where(q, k: q - far[q] <= k) + local(3) - same(doc))": "doc far",
}


@pytest.mark.parametrize("spec", WITH_INPUTS)
def test_inputs_move_with_their_tokens(spec: str) -> None:
    attention, operands, pieces = pd.compile(spec), arrays(79), PIECES[0]
    rng, names = np.random.default_rng(3), WITH_INPUTS[spec].split()
    inputs = {name: rng.integers(0, 9, (2, 79)[i:]) for i, name in enumerate(names)}
    inputs["doc"].sort(axis=-1)
    state, found = empty(attention), []
    for i, (q, k, v) in enumerate(zip(*(cut(x, pieces) for x in operands), strict=True)):
        mine = {name: cut(x, pieces, -1)[i] for name, x in inputs.items()}
        out, state = attention(q, k, v, state=state, **mine)
        found.append(out)
    np.testing.assert_allclose(jnp.concatenate(found, 1), pd.reference(spec, *operands, **inputs), atol=2e-5)


def test_one_program_for_a_whole_stream_under_scan_and_grad() -> None:
    """Shapes and program do not depend on where the stream is; a stopped state keeps gradients at home."""
    spec, size, count = "causal & segment_memory(8, 8)", 16, 5
    attention, operands = pd.compile(spec), arrays(size * count)
    pieces = [jnp.stack(cut(x, (size,) * count)) for x in operands]
    traced = []

    def stream(pieces: Any, stop: bool) -> Any:
        def one(state: Any, piece: Any) -> Any:
            traced.append(1)
            out, state = attention(*piece, state=jax.lax.stop_gradient(state) if stop else state)
            return state, out

        return jax.lax.scan(one, empty(attention), pieces)[1]

    found = jnp.concatenate(list(stream(pieces, True)), 1)
    np.testing.assert_allclose(found, pd.reference(spec, *operands), atol=2e-5)
    assert len(traced) == 1

    def last(pieces: Any, stop: bool) -> Any:
        return (stream(pieces, stop)[-1] ** 2).sum()

    free, stopped = (jax.grad(last)(pieces, stop)[1] for stop in (False, True))
    assert np.abs(free[:-2]).max() == 0 and np.abs(free[-2]).max() > 0
    assert np.abs(stopped[:-1]).max() == 0 and np.abs(stopped[-1]).max() > 0


def test_sequences_at_different_places_under_vmap() -> None:
    spec, (q, k, v) = "causal & segment_memory(4, 4)", arrays(24)
    attention = pd.compile(spec)
    states = []
    for i, before in enumerate((3, 14)):
        _, state = attention(q[i, :before], k[i, :before], v[i, :before], state=empty(attention, None))
        states.append(state)
    both = jax.tree.map(lambda *x: jnp.stack(x), *states)
    new = [jnp.stack([x[0, 3:11], x[1, 14:22]]) for x in (q, k, v)]
    out, _ = jax.vmap(lambda q, k, v, state: attention(q, k, v, state=state))(*new, both)
    whole = pd.reference(spec, q, k, v)
    np.testing.assert_allclose(out, jnp.stack([whole[0, 3:11], whole[1, 14:22]]), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_a_state_forgets_no_query_misses(data: st.DataObject) -> None:
    """Of random patterns that are taken: without the tokens in between, each query reads the same."""
    bounds = ["local(6)", "segment_memory(4, 3)", "local(5) & where(q, k: k % 3 > 0)"]
    near = pd.parse(f"causal & {data.draw(st.sampled_from(bounds))}").module.main
    main: Node = Intersection((near, data.draw(nodes(2, inputs=False))))
    if data.draw(st.booleans()):
        main = Union((main, pd.parse(data.draw(st.sampled_from(FURTHER))).module.main))
    try:
        spec = Spec(Module(main))
        if horizon(pd.compile(spec).module, 1).size > 100:
            reject()
    except SpecError:
        reject()
    assert_nothing_is_missed(spec)


def assert_nothing_is_missed(spec: Spec) -> None:
    """Each query reads only what a state holds, and the same where the tokens in between do not exist."""
    h = horizon(pd.compile(spec).module, 1)
    n = h.size + 2 * h.period + 7
    whole, other = reads(spec, n), reads(spec, n + 5)
    for q in range(n):
        base = max(0, (q - h.first) // h.period * h.period)
        assert all(first < h.pinned or first >= h.pinned + base for _, first in whole[q])
        if h.summarized:
            apart = max(0, (q - h.recent) // h.period * h.period)
            assert all(size % h.grain == 0 or first >= apart for size, first in whole[q])
        moved = {(size, first - base * (first >= h.pinned)): x for (size, first), x in whole[q].items()}
        assert moved == other[q - base]


FURTHER = (
    "causal & (sinks(2) | global(tokens=[4]))",
    "causal & local(12) & hierarchical(2, levels=1)",
    "causal & where(q, k: q - 13 < k and k < q - 5) & pool(3, whole=true)",
)


def reads(spec: Spec, n: int) -> list[dict[tuple[int, int], int]]:
    """For each query the length and the first token of what it keeps, and how often."""
    slots = spec.slots(n)
    return [
        {(int(slots.stop[i] - slots.start[i]), int(slots.start[i])): int(row[i]) for i in np.flatnonzero(row)}
        for row in slots.counts
    ]


REFUSED = {
    "local(5)": "query 0 reads key 1",
    "causal": "at any distance",
    "causal & strided(4)": "at any distance",
    "causal & local(ceil(sqrt(n)))": "not known for every length",
    "causal & (local(5) | columns([-9]))": "depends on the length",
    "causal & local(9) & where(q, k: 2 * k < q + 50)": "no shift",
    "causal & (local(4) | hierarchical(4))": "summaries of `hierarchical(4)` are not known before n is",
    "causal & (local(4) | pool(4))": "summary of tokens 0 … 3, which is not complete",
    "causal & (local(4) | hierarchical(2, levels=2))": "at any distance",
    "causal & (local(64) | select(3, 64, among=causal - local(64)))": "chosen",
    "input doc: token pattern main = causal & same(doc)": "at any distance",
    "input start: token pattern main = causal & local(3) & where(q, k: start[q] <= k)": "hold no positions",
    "input doc: token pattern main = causal & local(9) & pool(2, whole=true) & same(doc)": "of a summary",
    "causal & chunked(8191) & local(3) & where(q, k: k % 8192 > 0)": "67,100,671 keys",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_what_no_state_can_hold_is_refused(spec: str) -> None:
    with pytest.raises(SpecError, match="E506") as caught:
        empty(pd.compile(spec))
    assert REFUSED[spec] in str(caught.value)


def test_calls_that_do_not_fit_a_state() -> None:
    q, k, v = arrays(8)
    attention = pd.compile("causal & (local(5) | sinks(2))")
    state = empty(attention)
    other = empty(pd.compile("causal & local(4)"))
    for wrong, name in (
        ({"state": None, "q": q[:, :3]}, None),
        ({"q": q[:, :3]}, "q, k"),
        ({"state": other}, "state"),
        ({"state": k}, "state"),
        ({"k": k.astype("bfloat16")}, "k"),
        ({"v": v[:1]}, "v"),
        ({"q_offset": 3}, "q_offset"),
        ({"bias": jnp.zeros((8, 8))}, "bias"),
        ({"alibi_slopes": jnp.ones(4)}, "alibi_slopes"),
    ):
        given = {"q": q, "k": k, "v": v, "state": state, **wrong}
        if name is None:
            attention(**given)
            continue
        with pytest.raises(SpecError, match=f"E405.*`{name}`"):
            attention(**given)
    with_documents = pd.compile(next(iter(WITH_INPUTS)))
    documents = empty(with_documents)
    with pytest.raises(SpecError, match=r"`doc`.*\[3\].*\[8\]"):
        with_documents(q, k, v, state=documents, doc=np.zeros(3, int))
    with pytest.raises(SpecError, match=r"E405.*`state`.*inputs \[\], not \['doc'\]"):
        with_documents(q, k, v, state=dataclasses.replace(documents, inputs={}), doc=np.zeros(8, int))
    with pytest.raises(SpecError, match=r"E405.*`state`: what is added"):
        attention.bucketed()(q, k, v, state=state)
