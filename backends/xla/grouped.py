"""Parts with groups of queries and keys: forward and backward pass.

One loop goes over the groups that have both, in tiles of their queries: a tile is gathered, meets the keys of
its group block by block, and takes the softmax of its queries further, or adds to their gradients. Memory is
that of the operands and of the choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.xla.lanes import Lane, fold
from patterndsl.backends.xla.logits import Runtime, Settings, accumulator
from patterndsl.backends.xla.order import pad
from patterndsl.backends.xla.schedule import GroupedPass, Integers, earlier, schedule
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import TRUE
from patterndsl.plan.grouping import before, most_keys
from patterndsl.plan.plan import Membership


class GroupedFloats(NamedTuple):
    """The differentiable operands: ``q`` [B, K, G, T, H], ``k``, ``v`` [B, K, 1, S, H], ``bias`` [B | 1, K |
    1, G | 1, T, S], ``slopes`` [1, K, G]."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    bias: jax.Array | None
    slopes: jax.Array | None


Result: TypeAlias = tuple[jax.Array, jax.Array]


def attend_grouped(settings: Settings, part: GroupedPass, x: GroupedFloats, run: Runtime) -> Result:
    """The softmax over the part: output [B, K, G, T, Hv] and log-sum-exp [B, K, G, T]. Facts in ``run`` are
    those of the heads, [B | 1, K | 1, G | 1, …]."""
    integers = Integers(
        _three(run.q_offset.reshape(1)),
        None if run.kv_lengths is None else _three(run.kv_lengths),
        {name: values[:, None, None] for name, values in run.inputs.items()},
        tuple(f.values for f in run.facts),
        tuple(_three(jnp.asarray(f.first, jnp.int32).reshape(1)) for f in run.facts),
    )
    return _differentiable(settings, part)(x, integers)


def _three(x: jax.Array) -> jax.Array:
    return x[:, None, None]


def _differentiable(settings: Settings, part: GroupedPass) -> Callable[[GroupedFloats, Integers], Result]:
    run_forward = fold(functools.partial(_forward, settings, part), lambda x, _: (x.q, x.q))
    run_backward = fold(functools.partial(_backward, settings, part), lambda x, *_: x)

    @jax.custom_vjp
    def attend(x: GroupedFloats, integers: Integers) -> Result:
        return run_forward(x, integers)  # type: ignore[no-any-return]

    def save(x: GroupedFloats, integers: Integers) -> tuple[Result, Any]:
        out, lse = run_forward(x, integers)
        return (out, lse), (x, integers, out, lse)

    def pull(saved: Any, cotangents: Result) -> tuple[GroupedFloats, None]:
        return run_backward(*saved, *cotangents), None

    attend.defvjp(save, pull)
    return attend


class Tile(NamedTuple):
    """Queries that meet one group: ``rows`` [block_q] among all queries of all lanes, and past them where
    there is none; ``at`` the same, within bounds; ``positions`` [block_q]."""

    rows: jax.Array
    at: jax.Array
    positions: jax.Array


class Block(NamedTuple):
    """Keys that a tile meets at once: ``first`` the place of the first, for each its position [block_k], and
    whether a query meets it here, [block_q | 1, block_k]."""

    first: jax.Array
    positions: jax.Array
    real: jax.Array


class _Loop:
    """Goes over the lanes, their groups, tiles of queries, and blocks of keys."""

    def __init__(self, settings: Settings, part: GroupedPass, x: GroupedFloats, integers: Integers) -> None:
        self.settings, self.part, self.x, self.integers = settings, part, x, integers
        self.lanes = x.q.shape[:3]
        made = schedule(settings, part, integers, self.lanes)
        self.schedule = jax.tree.map(lambda a: a.reshape(-1, *a.shape[3:]), made)
        self.total = x.q.shape[0] * x.q.shape[1] * x.q.shape[2]
        self.q = x.q.reshape(-1, x.q.shape[-1])
        self.many = isinstance(part.grouping, Membership)  # groups that a key may be in
        ends = most_keys(part.grouping, part.n)
        self.one_block = ends is not None and ends <= part.block_k
        ordered = part.n if made.keys is None else made.keys.shape[-1]
        self.places = ordered + part.block_k
        self.k, self.v = (self.keys(a) for a in (x.k, x.v))
        keep = part.source.term.keep
        self.before = before(keep)

    def keys(self, a: jax.Array) -> jax.Array:
        """Keys or values in the order in which groups have them, [B, K, 1 | G, places, H]."""
        if self.schedule.keys is None:
            return pad(a, self.places, -2)
        order = self.schedule.keys.reshape(*self.lanes, -1)
        wide = jnp.broadcast_to(a, (*self.lanes, *a.shape[-2:]))
        if self.many:
            order = jnp.minimum(order, self.part.n - 1)
        return pad(_each_lane(_gather)(wide, order), self.places, -2)

    def keys_back(self, d: jax.Array) -> jax.Array:
        """The gradient of `keys`."""
        if self.schedule.keys is not None:
            order = self.schedule.keys.reshape(*self.lanes, -1)
            if self.many:
                d = _each_lane(self.added)(d, order)
            else:
                d = _each_lane(lambda d, i: _gather(d, jnp.argsort(i)))(d, order)
        return jnp.sum(d[..., : self.part.n, :], axis=2, keepdims=True)

    def added(self, d: jax.Array, order: jax.Array) -> jax.Array:
        """To each key what is in its places."""
        zero = jnp.zeros((self.part.n, d.shape[-1]), d.dtype)
        return zero.at[order].add(d[: len(order)], mode="drop")

    def run(self, tile: Callable[[Lane, Tile, Callable[..., Any], Any], Any], carry: Any) -> Any:
        """``tile(lane, tile, blocks, carry)`` for each tile in turn, where ``blocks(step, c)`` calls
        ``step(block, c)`` for its keys in turn."""
        s, part = self.schedule, self.part

        def group(lane: Lane, g: jax.Array, carry: Any) -> Any:
            start, count = s.query_start[lane.number, g], s.query_count[lane.number, g]

            def one(i: jax.Array, carry: Any) -> Any:
                made = self.tile(lane, start + i * part.block_q, count - i * part.block_q)
                return tile(lane, made, functools.partial(self.blocks, lane, g, made), carry)

            return lax.fori_loop(0, -(-count // part.block_q), one, carry)

        def lane(i: jax.Array, carry: Any) -> Any:
            mine = Lane.of(jnp.int32(i), self.lanes)  # which is 64 bits long where JAX has them
            return lax.fori_loop(0, s.number[i], lambda p, c: group(mine, s.visited[i, p], c), carry)

        return lax.fori_loop(0, self.total, lane, carry)

    def tile(self, lane: Lane, start: jax.Array, count: jax.Array) -> Tile:
        size, n_q = self.part.block_q, self.part.n_q
        here = lax.dynamic_slice(self.schedule.queries, (lane.number, start), (1, size))[0]
        real = (jnp.arange(size) < count) & (here < n_q)
        index = jnp.where(real, here, 0)
        at = lane.number * n_q + index
        rows = jnp.where(real, at, self.total * n_q + jnp.arange(size))  # each index once
        return Tile(rows, at, lane.read(self.integers.q_offset) + index)

    def blocks(
        self, lane: Lane, g: jax.Array, tile: Tile, step: Callable[[Block, Any], Any], carry: Any
    ) -> Any:
        """Calls ``step`` for the blocks of keys of group ``g``; none that lie after all the tile's queries,
        where a pattern keeps no later keys."""
        s, size = self.schedule, self.part.block_k
        start, count = s.key_start[lane.number, g], s.key_count[lane.number, g]
        real = tile.rows < self.total * self.part.n_q
        last = jnp.max(jnp.where(real, tile.positions, -(2**31)))
        new = self.new(lane, g, tile)

        def block(i: jax.Array) -> Block:
            first = start + i * size
            places = first + jnp.arange(size, dtype=jnp.int32)
            positions = places
            if s.keys is not None:
                index = jnp.minimum(places, s.keys.shape[-1] - 1)
                positions = s.keys[lane.number, index]
            real = (places < start + count)[None]
            return Block(first, positions, real if new is None else real & new(positions))

        def more(state: tuple[jax.Array, Any]) -> jax.Array:
            i, _ = state
            some: jax.Array = i * size < count
            if not self.before:
                return some
            first = start + i * size
            if s.keys is not None:
                first = s.keys[lane.number, jnp.minimum(first, s.keys.shape[-1] - 1)]
            before: jax.Array = some & (first <= last)
            return before

        def turn(state: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            i, c = state
            return i + 1, step(block(i), c)

        if self.one_block:
            return step(block(jnp.int32(0)), carry)
        return lax.while_loop(more, turn, (jnp.int32(0), carry))[1]

    def new(self, lane: Lane, g: jax.Array, tile: Tile) -> Callable[[jax.Array], jax.Array] | None:
        """Whether a query and the keys at positions meet in no group before ``g``, [block_q, block_k]; None
        where they never do."""
        of_queries, of_keys = self.schedule.of_queries, self.schedule.of_keys
        if of_queries is None or of_keys is None:
            return None
        mine = of_queries[lane.number, tile.at - lane.number * self.part.n_q]
        mine = mine & earlier(g, mine.shape[-1])

        def of(positions: jax.Array) -> jax.Array:
            theirs = of_keys[lane.number, jnp.minimum(positions, self.part.n - 1)]
            both = [mine[:, None, w] & theirs[None, :, w] for w in range(mine.shape[-1])]
            new: jax.Array = functools.reduce(jnp.bitwise_or, both) == 0
            return new

        return of

    def read_keys(self, lane: Lane, block: Block) -> tuple[jax.Array, jax.Array]:
        """The keys and values of a block."""
        k, v = (lane.rows(a, block.first, self.part.block_k) for a in (self.k, self.v))
        return k, v

    def logits(
        self, lane: Lane, tile: Tile, block: Block, scores: jax.Array, slope: Any, bias: Any
    ) -> jax.Array:
        """Scaled scores [block_q, block_k] → logits, −inf where not kept."""
        value, softcap = scores, self.settings.softcap
        if softcap is not None:
            value = softcap * jnp.tanh(value / softcap)
        q, k = tile.positions[:, None], block.positions[None, :]
        if slope is not None:
            value = value - slope * jnp.abs(q - k).astype(value.dtype)
        if bias is not None:
            value = value + bias.astype(value.dtype)
        mask = block.real
        if self.integers.lengths is not None:
            mask = mask & (k < lane.read(self.integers.lengths))
        term = self.part.source.term
        data = self.data(lane)
        if term.keep is not TRUE:
            mask = mask & jnp.asarray(evaluate(term.keep, {"q": q, "k": k}, data, jnp))
        if term.count is not None:
            count = jnp.asarray(evaluate(term.count, {"q": q, "k": k}, data, jnp))
            value = value + jnp.log(jnp.maximum(count, 1).astype(value.dtype))
        return jnp.where(mask, value, -jnp.inf)

    def data(self, lane: Lane) -> dict[Any, Any]:
        """What a predicate reads, of one lane."""
        found: dict[Any, Any] = {
            name: lane.reader(values, jnp.int32(0)) for name, values in self.integers.inputs.items()
        }
        for fact, values, first in zip(
            self.settings.facts, self.integers.facts, self.integers.first, strict=True
        ):
            found[fact] = lane.reader(values, lane.read(first))
        return found

    def floats(self, lane: Lane, tile: Tile, block: Block) -> tuple[Any, Any]:
        """The slope, and the bias [block_q, block_k]."""
        slope = None if self.x.slopes is None else lane.read(self.x.slopes)
        if self.x.bias is None:
            return slope, None
        return slope, self.x.bias[self.of_bias(lane, tile, block)]

    def of_bias(self, lane: Lane, tile: Tile, block: Block) -> tuple[Any, ...]:
        """Where a bias is read."""
        assert self.x.bias is not None
        columns = jnp.minimum(block.positions, self.part.n - 1)
        rows = tile.at - lane.number * self.part.n_q
        return (*lane.within(self.x.bias), rows[:, None], columns[None, :])


def _each_lane(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    mapped: Callable[..., jax.Array] = jax.vmap(jax.vmap(jax.vmap(f)))
    return mapped


def _dot(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
    numbers = (((over[0],), (over[1],)), ((), ()))
    return lax.dot_general(a, b, numbers, preferred_element_type=accumulator(a.dtype))


def _gather(x: jax.Array, at: jax.Array) -> jax.Array:
    found: jax.Array = x.at[at].get(mode="promise_in_bounds")
    return found


def _scatter(x: jax.Array, rows: jax.Array, new: jax.Array) -> jax.Array:
    """The rows replaced; those past the end are dropped."""
    found: jax.Array = x.at[rows].set(new, mode="drop", unique_indices=True)
    return found


def _forward(settings: Settings, part: GroupedPass, x: GroupedFloats, integers: Integers) -> Result:
    loop = _Loop(settings, part, x, integers)
    dtype = accumulator(x.q.dtype)
    rows = loop.total * part.n_q
    start = (
        jnp.full(rows, -jnp.inf, dtype),
        jnp.zeros(rows, dtype),
        jnp.zeros((rows, x.v.shape[-1]), dtype),
    )

    def tile(lane: Lane, t: Tile, blocks: Callable[..., Any], state: Any) -> Any:
        q = _gather(loop.q, t.at)

        def step(block: Block, mine: Any) -> Any:
            k, v = loop.read_keys(lane, block)
            scores = _dot(q, k, (1, 1)) * settings.scale
            logits = loop.logits(lane, t, block, scores, *loop.floats(lane, t, block))
            top, total, sums = mine
            new = jnp.maximum(top, jnp.max(logits, axis=-1))
            finite = jnp.where(new == -jnp.inf, 0.0, new)
            shrink, p = jnp.exp(top - finite), jnp.exp(logits - finite[:, None])
            sums = sums * shrink[:, None] + _dot(p.astype(v.dtype), v, (1, 0))
            return new, total * shrink + jnp.sum(p, axis=-1), sums

        mine = blocks(step, tuple(_gather(a, t.at) for a in state))
        return tuple(_scatter(a, t.rows, new) for a, new in zip(state, mine, strict=True))

    top, total, sums = loop.run(tile, start)
    empty = total == 0
    whole = jnp.where(empty, 1.0, total)
    lse = jnp.where(empty, -jnp.inf, top + jnp.log(whole))
    out = jnp.where(empty[:, None], 0.0, sums / whole[:, None])
    return out.reshape(*x.q.shape[:-1], -1), lse.reshape(x.q.shape[:-1])


def _backward(
    settings: Settings,
    part: GroupedPass,
    x: GroupedFloats,
    integers: Integers,
    out: jax.Array,
    lse: jax.Array,
    d_out: jax.Array,
    d_lse: jax.Array,
) -> GroupedFloats:
    """The gradients of the operands, in their dtypes."""
    loop = _Loop(settings, part, x, integers)
    dtype = accumulator(x.q.dtype)
    empty = lse == -jnp.inf
    delta = (jnp.sum(d_out * out, axis=-1) - jnp.where(empty, 0.0, d_lse)).reshape(-1)
    known = jnp.where(empty, 0.0, lse).reshape(-1)
    d_out = d_out.astype(x.q.dtype).reshape(-1, d_out.shape[-1])
    wide = (*loop.lanes, loop.places)
    start = (
        jnp.zeros(loop.q.shape, dtype),
        jnp.zeros((*wide, x.k.shape[-1]), dtype),
        jnp.zeros((*wide, x.v.shape[-1]), dtype),
        None if x.bias is None else jnp.zeros(x.bias.shape, dtype),
        None if x.slopes is None else jnp.zeros(x.slopes.shape, dtype),
    )

    def tile(lane: Lane, t: Tile, blocks: Callable[..., Any], total: Any) -> Any:
        q, d, lse, delta_t = (_gather(a, t.at) for a in (loop.q, d_out, known, delta))
        real = (t.rows < loop.total * part.n_q)[:, None]

        def step(block: Block, carry: Any) -> Any:
            d_q, d_k, d_v, d_bias, d_slopes = carry
            k, v = loop.read_keys(lane, block)
            scores = _dot(q, k, (1, 1)) * settings.scale
            of_logits = functools.partial(loop.logits, lane, t, block)
            logits, pull = jax.vjp(of_logits, scores, *loop.floats(lane, t, block))
            p = jnp.where(real, jnp.exp(logits - lse[:, None]), 0.0)
            d_logits = p * (_dot(d, v, (1, 1)) - delta_t[:, None])
            d_scores, d_slope, d_bias_here = pull(d_logits)
            d_scores = (d_scores * settings.scale).astype(q.dtype)
            if d_bias is not None:
                d_bias = d_bias.at[loop.of_bias(lane, t, block)].add(d_bias_here.astype(dtype))
            if d_slopes is not None:
                d_slopes = d_slopes.at[lane.within(d_slopes)].add(d_slope)
            return (
                d_q + _dot(d_scores, k, (1, 0)),
                lane.add(d_k, block.first, _dot(d_scores, q, (0, 0))),
                lane.add(d_v, block.first, _dot(p.astype(v.dtype), d, (0, 0))),
                d_bias,
                d_slopes,
            )

        all_q, *others = total
        d_q, *others = blocks(step, (_gather(all_q, t.at), *others))
        return (_scatter(all_q, t.rows, d_q), *others)

    d_q, d_k, d_v, d_bias, d_slopes = loop.run(tile, start)
    found = GroupedFloats(d_q.reshape(x.q.shape), loop.keys_back(d_k), loop.keys_back(d_v), d_bias, d_slopes)
    gradients: GroupedFloats = jax.tree.map(lambda g, a: g.astype(a.dtype), found, x)
    return gradients
