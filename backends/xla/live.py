"""Which blocks a tile of queries need not look at, found on the device.

Where a predicate reads run-time inputs, or facts about q and k, tables cannot know. It is then asked over
whole boxes, as for the tables (`ir.interval`), with the least and the greatest value in a stretch of
positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from patterndsl.backends.facts import FactArray
from patterndsl.backends.xla.logits import Runtime, Settings
from patterndsl.backends.xla.tiles import Pass, Piece
from patterndsl.ir.expr import Expr, var
from patterndsl.ir.interval import EXACT, Interval, bounds, classify
from patterndsl.ir.nodes import Fact
from patterndsl.ir.normal import slot_index
from patterndsl.ir.ranges import INPUTS


@dataclasses.dataclass(frozen=True)
class Extremes:
    """For stretches of 1, 2, 4, … positions from each on the least and the greatest value, [..., levels ·
    size] each; the first position of the axis is ``first``."""

    least: jax.Array
    greatest: jax.Array
    size: int
    first: Any

    @classmethod
    def of(cls, values: jax.Array, first: Any = 0) -> Extremes:
        """Of the last axis of ``values``."""
        size = values.shape[-1]
        levels = [(values, values)]
        width = 1
        while 2 * width <= size:
            low, high = levels[-1]
            beside = jnp.minimum(jnp.arange(size) + width, size - 1)
            levels.append((jnp.minimum(low, low[..., beside]), jnp.maximum(high, high[..., beside])))
            width *= 2
        least, greatest = (jnp.concatenate(x, axis=-1) for x in zip(*levels, strict=True))
        return cls(least, greatest, size, first)

    def over(self, at: Interval) -> Interval:
        """Bounds over intervals of positions, each moved into the axis."""
        low, high = (jnp.clip(x - self.first, 0, self.size - 1) for x in (at.lo, at.hi))
        level = 31 - lax.clz(jnp.maximum(high - low + 1, 1))
        ends = (level * self.size + low, level * self.size + high + 1 - (1 << level))
        least = jnp.minimum(*(self.least[..., x] for x in ends))
        greatest = jnp.maximum(*(self.greatest[..., x] for x in ends))
        return Interval(least, greatest)


class Known(NamedTuple):
    """For each input by its name, and for each fact with one axis, its extremes. ``fit``: whether inputs are
    small enough for nothing to overflow on the way to bounds; those that are only compared may not be."""

    of: Mapping[Any, Extremes]
    fit: jax.Array


def known(settings: Settings, part: Pass, run: Runtime) -> Known:
    """The extremes that the looped pieces of a part ask for; with axes of batch and heads."""
    looped = sorted({p.source for rows in part.rows for p in rows.looped if p.partial})
    facts = dict(zip(settings.facts, run.facts, strict=True))
    found: dict[Any, Extremes] = {}
    fit = jnp.asarray(True)
    for node in dict.fromkeys(x for i in looped for x in part.sources[i].term.keep.walk()):
        if node.op == "input":
            values = run.inputs[str(node.value)]
            found[node.value] = Extremes.of(values[:, None, None])
            fit = fit & jnp.all((values >= -INPUTS) & (values <= INPUTS))
        elif isinstance(node.value, Fact) and len(node.args) == 1:
            found[node.value] = Extremes.of(*facts[node.value])
    return Known(found, fit)


def skip(
    settings: Settings,
    part: Pass,
    piece: Piece,
    starts: jax.Array,
    count: jax.Array,
    run: Runtime,
    tile: jax.Array,
    extremes: Known,
) -> tuple[Piece, jax.Array, jax.Array]:
    """A looped piece, and for one row the starts of its blocks and their number, without those that keep
    nothing."""
    source = part.sources[piece.source]
    order, keep = part.queries.run, source.term.keep
    if not (piece.partial and keep.reads_data()) or order is None or part.reordered(source):
        return piece, starts, count
    begin = run.q_offset + order[0]
    first, last = tile * part.block_q, jnp.minimum((tile + 1) * part.block_q, order[1]) - 1
    blocks = jnp.arange(piece.width, dtype=jnp.int32)
    low = starts[0] + blocks * piece.block if piece.contiguous else starts
    env = {
        "q": Interval((begin + first)[None], (begin + last)[None]),  # of one axis, that of the blocks
        str(slot_index(source.pool).value): Interval(low, jnp.minimum(low + piece.block, source.slots) - 1),
    }
    boxes = _Boxes(env, extremes, dict(zip(settings.facts, run.facts, strict=True)), part.block_q)
    never = boxes.never(keep)
    dead = jnp.all(never, axis=tuple(range(never.ndim - 1))) if never.ndim > 1 else never
    dead = jnp.broadcast_to(dead & extremes.fit, blocks.shape)
    live = _for_all(~dead & (blocks < count))
    (found,) = jnp.nonzero(live, size=piece.width, fill_value=0)
    apart = dataclasses.replace(piece, contiguous=False, whole_steps=False)
    return apart, low[found], jnp.sum(live, dtype=jnp.int32)


class _Boxes:
    """A tile of ``block_q`` queries with each of some blocks, in ``env``."""

    def __init__(
        self, env: dict[str, Interval], extremes: Known, facts: Mapping[Fact, FactArray], block_q: int
    ) -> None:
        self.env, self.extremes, self.facts, self.block_q = env, extremes, facts, block_q

    def never(self, keep: Expr) -> jax.Array:
        """Which of the boxes the predicate is seen to keep nothing of."""
        env = dict(self.env)

        def name(e: Expr) -> Expr | None:
            """A variable that is 1 in place of a comparison that may hold."""
            if e.op != "eq" or not e.names() <= self.env.keys():
                return None
            for a, b in (e.args, e.args[::-1]):
                if isinstance(a.value, Fact) and len(a.args) == 2 and not b.facts():
                    may = self.may_be(a, b)
                    if may is not None:
                        own = f"may {len(env)}"
                        env[own] = Interval(0, may.astype(jnp.int32))
                        return var(own).eq(1)
            return None

        return jnp.asarray(classify(keep.rebuild(name), env, self.bounds, jnp).never)

    def bounds(self, node: Expr, at: Interval) -> Interval:
        """Of an input, or a fact."""
        if node.value in self.extremes.of:
            return self.extremes.of[node.value].over(at)
        assert isinstance(node.value, Fact)
        return Interval(-1, node.value.pattern.largest(node.value.name))

    def may_be(self, e: Expr, other: Expr) -> jax.Array | None:
        """Whether a fact with two axes has a value that ``other`` has, in each box; None: not looked at. Its
        first index names queries, or blocks of them; its second one is fixed, or the other's value is."""
        row, column = e.args
        span = (
            bounds(row, {"q": Interval(0, self.block_q - 1)}, None, EXACT) if row.names() <= {"q"} else None
        )
        if span is None:
            return None
        values, first = self.facts[e.value]  # type: ignore[index]
        ends, value = (bounds(x, self.env, self.bounds, jnp) for x in (row, other))
        rows = jnp.minimum(ends.lo + jnp.arange(span.hi - span.lo + 2), ends.hi) - first
        here = values[..., jnp.clip(rows, 0, values.shape[-2] - 1), :]  # [B | 1, K | 1, G | 1, rows, …]
        if column.number is not None:
            mine = here[..., min(column.number, here.shape[-1] - 1), None]
            return jnp.any((mine >= value.lo) & (mine <= value.hi), axis=-2)
        if other.number is None:
            return None
        held = jnp.cumsum(jnp.any(here == other.number, axis=-2), axis=-1, dtype=jnp.int32)
        held = jnp.pad(held, [(0, 0)] * (held.ndim - 1) + [(1, 0)])  # how many of the columns before each
        at = bounds(column, self.env, self.bounds, jnp)
        low, high = (jnp.clip(x, 0, values.shape[-1] - 1) for x in (at.lo, at.hi))
        return held[..., high + 1] > held[..., low]


@custom_vmap
def _for_all(live: jax.Array) -> jax.Array:
    """The same under `vmap` for all that are mapped over, so that loops stay loops of one length."""
    return live


@_for_all.def_vmap
def _any(axis_size: int, in_batched: list[bool], live: jax.Array) -> tuple[jax.Array, bool]:
    return (_for_all(jnp.any(live, axis=0)) if in_batched[0] else live), False
