"""Attention piece by piece: the keys and values of earlier pieces as a state of fixed size.

The state is a window on the sequence, `Horizon.size` keys long. It begins where the pattern looks as it does
at the beginning of the sequence, so that a piece is a plain call: the state's keys and the new ones in order,
and the piece's queries at their places among them. Those places are known at run time only, as is how full
the state is. Two programs at most answer for all of them, so that nothing is compiled anew as the stream goes
on:

- once the state is full, queries begin within one period of a place that is known, and the plan for that
  place serves them, with as many queries more as the period has;
- before that, and where the period is so long that this does not pay, either all places at which queries can
  be are computed, or the queries alone without skipping tiles: whichever is less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from patterndsl.backends.xla.summaries import summarize
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall, InputShape
from patterndsl.horizon import Horizon
from patterndsl.horizon import horizon as horizon_of
from patterndsl.ir.nodes import Pool
from patterndsl.spec import check_inputs

if TYPE_CHECKING:
    from patterndsl.api import Attention

TOKENS = -3  # the axis of tokens
UNKNOWN = 2  # what a pair costs where its query's place is not known, as each is tested ÷ what it costs else
WORTH = 0.8  # pairs of the second program ÷ those of the first, from which it is worth compiling


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What later pieces of a stream read of the earlier ones (see `Attention.initial_state`): a pytree of
    fixed shapes.

    ``filled`` (int32): how many keys it stands for. ``k`` [B, held, K, H] and ``v`` [B, held, K, Hv] (or
    without B): the last of them, in order, and zeros. ``old_k`` and ``old_v`` [B, chunks, K, …]: summaries of
    those before, of `Horizon.grain` keys each; None where there are none. ``inputs``: the run-time inputs of
    the keys in ``k``, int32 [B, held].
    """

    k: Any
    v: Any
    old_k: Any
    old_v: Any
    filled: Any
    inputs: dict[str, Any]
    horizon: Horizon = dataclasses.field(metadata={"static": True})


def empty(
    horizon: Horizon,
    batch: int | None,
    num_kv_heads: int,
    head_dim: int,
    v_head_dim: int,
    dtype: Any,
    inputs: Iterable[str],
) -> State:
    """The state before the first piece. ``inputs``: the names of those with a value for each token."""

    def zeros(tokens: int, size: int) -> jax.Array:
        return jnp.zeros((*(() if batch is None else (batch,)), tokens, num_kv_heads, size), dtype)

    chunks = horizon.summarized // horizon.grain
    old_k, old_v = (zeros(chunks, size) if chunks else None for size in (head_dim, v_head_dim))
    k, v = (zeros(horizon.held, size) for size in (head_dim, v_head_dim))
    values = {name: jnp.zeros(k.shape[: TOKENS + 1], jnp.int32) for name in inputs}
    return State(k, v, old_k, old_v, jnp.zeros((), jnp.int32), values, horizon)


def step(
    attention: Attention, q: Any, k: Any, v: Any, state: State, arguments: dict[str, Any]
) -> tuple[Any, State]:
    """The result of one piece, and the state for the next. ``arguments``: of the call, beside these."""
    q, k, v = (jnp.asarray(x) for x in (q, k, v))
    gates = arguments.pop("gates", None)
    if q.ndim not in (3, 4):
        attention._run(q, k, v, **arguments)  # says what is wrong
    horizon = horizon_of(attention.module, q.shape[-2])
    _check(q, k, v, state, horizon, arguments)
    arguments.pop("q_offset")
    tokens = k.shape[TOKENS]
    new = _inputs(attention, state, arguments.pop("inputs"), q.shape[: TOKENS + 1])
    keys, values = _keys(state, state.k, state.old_k, k), _keys(state, state.v, state.old_v, v)
    inputs = {name: _keys(state, _wide(state.inputs[name]), None, _wide(x)) for name, x in new.items()}
    run = _programs(attention, horizon, q.shape[-2], tokens)

    def at(offset: Any, places: int, before: Any, n: int) -> Callable[[], Any]:
        """Attention of ``places`` queries from ``offset`` on, of which the piece's come after ``before``."""

        def call() -> Any:
            wide = [_placed(x, places, before) for x in (q, gates)]
            here = [x[..., :n, :, :] for x in (keys, values)]
            mine = {name: x[..., :n, 0, 0] for name, x in inputs.items()}
            out = attention._run(wide[0], *here, q_offset=offset, gates=wide[1], inputs=mine, **arguments)
            if places == tokens:
                return out
            if arguments["return_lse"]:
                return _from(out[0], before, tokens, TOKENS), _from(out[1], before, tokens, TOKENS + 1)
            return _from(out, before, tokens, TOKENS)

        return call

    size = horizon.size + tokens
    anywhere = at(state.filled, tokens, 0, size) if run.plain else at(0, size, state.filled, size)
    if run.full is None:
        out = anywhere()
    else:
        aligned = run.full == tokens
        first = horizon.whole if aligned else horizon.first
        ready = state.filled == first if aligned else state.filled >= first
        full = at(first, run.full, 0 if aligned else state.filled - first, first + run.full)
        out = jax.lax.cond(ready, full, anywhere)
    return out, _next(state, keys, values, inputs, tokens)


@dataclasses.dataclass(frozen=True)
class _Programs:
    """``plain``: a state that is not full takes the queries alone, at a place known at run time; else all
    places at which they can be. ``full``: so many queries are computed from a full state; None where that is
    not worth a program of its own."""

    plain: bool
    full: int | None


def _programs(attention: Attention, horizon: Horizon, heads: int, tokens: int) -> _Programs:
    size = horizon.size + tokens
    alone = UNKNOWN * tokens * size * heads
    everywhere = attention.plan(size, num_heads=heads).stats().computed
    # Pieces of whole periods keep their place among these; others start at any.
    aligned = tokens % horizon.period == 0
    queries = tokens if aligned else tokens + horizon.period - 1
    first = horizon.whole if aligned else horizon.first
    full = attention.plan(first + queries, queries, num_heads=heads, q_offset=first).stats().computed
    worth = full <= WORTH * min(alone, everywhere)
    return _Programs(alone <= everywhere, queries if worth else None)


def _check(
    q: jax.Array, k: jax.Array, v: jax.Array, state: State, horizon: Horizon, arguments: dict[str, Any]
) -> None:
    for name in ("bias", "kv_lengths", "q_offset"):
        if arguments.get(name) is not None:
            reason = "it speaks of positions in the whole sequence, of which a state has the last ones"
            raise SpecError(
                BadCall(argument=name, reason=reason, advice="leave it out where `state` is given")
            )
    if arguments.get("alibi_slopes") is not None and horizon.pinned:
        reason = "the distances to the first tokens are gone, as a state leaves out what lies between"
        advice = "leave it out where `state` is given, or the first tokens out of the spec"
        raise SpecError(BadCall(argument="alibi_slopes", reason=reason, advice=advice))
    if not isinstance(state, State):
        reason = f"what `initial_state` or an earlier call returned is needed, not {type(state).__name__}"
        raise SpecError(BadCall(argument="state", reason=reason))
    if state.horizon != horizon:
        reason = f"it holds what another pattern reads ({state.horizon}, not {horizon})"
        advice = "make it with this function's `initial_state`, with `num_heads` where heads differ"
        raise SpecError(BadCall(argument="state", reason=reason, advice=advice))
    if q.shape[: TOKENS + 1] != k.shape[: TOKENS + 1]:
        reason = f"a piece has as many queries as keys, not q {q.shape}, k {k.shape}"
        raise SpecError(BadCall(argument="q, k", reason=reason, advice="pass the new tokens alone"))
    for name, new, kept in (("k", k, state.k), ("v", v, state.v)):
        if _without_tokens(new.shape) != _without_tokens(kept.shape) or new.dtype != kept.dtype:
            made = f"the state holds {kept.dtype}{list(kept.shape)}"
            reason = f"{new.dtype}{list(new.shape)} does not fit the state: {made}"
            advice = "make the state with the batch, heads, head sizes and dtype of the calls"
            raise SpecError(BadCall(argument=name, reason=reason, advice=advice))


def _without_tokens(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:TOKENS], *shape[TOKENS + 1 :])


def _wide(x: jax.Array) -> jax.Array:
    """A number for each token, in the shape of keys."""
    return x[..., None, None]


def _inputs(
    attention: Attention, state: State, given: dict[str, Any], shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """The run-time inputs of a piece: for each token of each sequence its own value."""
    found = {}
    if state.inputs.keys() != attention.spec.module.inputs.keys():
        names = sorted(state.inputs), sorted(attention.spec.module.inputs)
        reason = f"it holds the inputs {names[0]}, not {names[1]}"
        raise SpecError(BadCall(argument="state", reason=reason, advice="make it with this function"))
    for name, value in check_inputs(attention.spec.module.inputs, given, shape[-1]).items():
        x = jnp.asarray(value, jnp.int32)
        if x.ndim > len(shape) or (x.ndim == 2 and x.shape[0] not in (1, shape[0])):
            raise SpecError(InputShape(name=name, shape=tuple(x.shape), expected=str(list(shape))))
        found[name] = jnp.broadcast_to(x, shape)
    return found


def _zeros(x: jax.Array, tokens: int) -> jax.Array:
    return jnp.zeros((*x.shape[:TOKENS], tokens, *x.shape[TOKENS + 1 :]), x.dtype)


def _old(h: Horizon, filled: Any) -> Any:
    """Of how many keys a state holds summaries, where it stands for so many."""
    return jnp.maximum((filled - h.recent) // h.period * h.period, 0) if h.summarized else 0


def _keys(state: State, kept: jax.Array, old: jax.Array | None, new: jax.Array) -> jax.Array:
    """All keys that a state stands for, the new ones, and zeros. Each summary is repeated in place of the
    keys of which it is made, so that those who read them in summaries find it."""
    h, axis = state.horizon, TOKENS % new.ndim
    places = h.size + new.shape[TOKENS] + h.period - 1
    if old is None:
        x = jnp.concatenate([kept, _zeros(kept, places - h.held)], axis)
    else:
        x = jnp.repeat(old, h.grain, axis)
        x = jnp.concatenate([x, _zeros(kept, places - x.shape[axis])], axis)
        x = jax.lax.dynamic_update_slice_in_dim(x, kept, _old(h, state.filled), axis)
    return jax.lax.dynamic_update_slice_in_dim(x, new, state.filled, axis)


def _placed(x: Any, places: int, before: Any) -> Any:
    """The piece's tokens among so many places, the others being zero."""
    if x is None or x.shape[TOKENS] == places:
        return x
    return jax.lax.dynamic_update_slice_in_dim(_zeros(x, places), x, before, TOKENS % x.ndim)


def _from(x: jax.Array, start: Any, size: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis % x.ndim)


def _next(
    state: State, keys: jax.Array, values: jax.Array, inputs: dict[str, jax.Array], tokens: int
) -> State:
    """The window, moved by whole periods to where the next piece needs it."""
    h = state.horizon
    end = state.filled + tokens
    moved = jnp.maximum((end - h.first) // h.period * h.period, 0)
    filled = end - moved

    def held(x: jax.Array) -> jax.Array:
        rest = _from(x, h.pinned + moved + _old(h, filled), h.held - h.pinned, TOKENS)
        return jnp.concatenate([x[..., : h.pinned, :, :], rest], TOKENS) if h.pinned else rest

    def old(x: jax.Array, before: jax.Array | None) -> jax.Array | None:
        if before is None:
            return None
        pool = Pool(h.grain, h.grain, h.reduce)
        made = summarize(x if x.ndim == 4 else x[None], [pool], None)[pool]
        made = made if x.ndim == 4 else made[0]
        known = jnp.concatenate([before, _zeros(made, made.shape[TOKENS] - before.shape[TOKENS])], TOKENS)
        first = jnp.arange(made.shape[TOKENS])[:, None, None] * h.grain
        made = jnp.where(first < _old(h, state.filled), known, made)  # what is a summary already stays it
        return _from(made, moved // h.grain, h.summarized // h.grain, TOKENS)

    summaries = old(keys, state.old_k), old(values, state.old_v)
    kept = {name: held(x)[..., 0, 0] for name, x in inputs.items()}
    return State(held(keys), held(values), *summaries, filled, kept, h)
