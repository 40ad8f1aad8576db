"""Which queries meet which keys, where each query names groups of keys: found on the device, by sorting."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from patterndsl.backends.facts import FactArray
from patterndsl.backends.xla.logits import Settings
from patterndsl.backends.xla.order import Order
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.plan import Grouping, Part, Source

SORT_LIMIT = 2**31  # numbers up to which a group and an index are sorted as one


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedPass:
    """A part with groups made ready, for ``n`` keys and ``n_q`` queries as they come."""

    block_q: int
    block_k: int
    source: Source
    grouping: Grouping
    n: int
    n_q: int

    @property
    def queries(self) -> Order:
        """All of them."""
        return Order(np.arange(self.n_q, dtype=np.int32), self.n_q)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The tokens."""
        return (TOKENS,)


def prepare_grouped(part: Part, n: int, n_q: int) -> GroupedPass:
    """A part with groups."""
    assert part.grouping is not None
    return GroupedPass(part.block_q, part.block_k, part.sources[0], part.grouping, n, n_q)


class Integers(NamedTuple):
    """What is known at run time, each with the axes [B | 1, K | 1, G | 1]: ``q_offset`` and ``lengths`` (of
    the keys) no further, ``inputs`` [n]; ``facts`` their values, ``first`` the index at which each begins."""

    q_offset: jax.Array
    lengths: jax.Array | None
    inputs: dict[str, jax.Array]
    facts: tuple[jax.Array, ...]
    first: tuple[jax.Array, ...]


class Schedule(NamedTuple):
    """Per lane (a sequence's query head), [B, K, G, …]: ``queries`` those that named each group, group after
    group (`n_q` where there is none); ``query_start``, ``query_count`` for each group; ``keys`` the tokens,
    group after group, where they are not as they come; ``key_start``, ``key_count``; ``visited`` the groups
    that have both, and their ``number``."""

    queries: jax.Array
    query_start: jax.Array
    query_count: jax.Array
    keys: jax.Array | None
    key_start: jax.Array
    key_count: jax.Array
    visited: jax.Array
    number: jax.Array


def schedule(settings: Settings, part: GroupedPass, integers: Integers, lanes: tuple[Any, ...]) -> Schedule:
    """Which queries meet which keys. ``lanes``: the sizes of B, K and G."""
    g = part.grouping
    facts = {
        fact: FactArray(values, first[..., None, None])
        for fact, values, first in zip(settings.facts, integers.facts, integers.first, strict=True)
    }
    positions = integers.q_offset[..., None] + jnp.arange(part.n_q, dtype=jnp.int32)
    choices = _chosen(g, positions, facts[g.fact])
    choices = jnp.broadcast_to(choices, (*lanes, part.n_q, g.choices)).reshape(*lanes, -1)
    named = (choices >= 0) & (choices < g.groups)
    entries, groups = _sorted(jnp.where(named, choices, g.groups), g.groups)
    queries = entries // g.choices
    again = (groups[..., 1:] == groups[..., :-1]) & (queries[..., 1:] == queries[..., :-1])
    again = jnp.pad(again, [(0, 0)] * 3 + [(1, 0)])
    queries = jnp.where(again | (groups == g.groups), part.n_q, queries)
    query_count = _counts(groups, g.groups)
    if g.size is not None:
        first = jnp.arange(g.groups, dtype=jnp.int32) * g.size
        key_start = jnp.broadcast_to(first, (*lanes, g.groups))
        key_count = jnp.broadcast_to(jnp.clip(part.n - first, 0, g.size), (*lanes, g.groups))
        keys = None
    else:
        tokens = jnp.arange(part.n, dtype=jnp.int32)
        of = jnp.asarray(evaluate(g.key, {"k": tokens}, _whole(facts), jnp), jnp.int32)
        of = jnp.broadcast_to(of, (*lanes, part.n))
        if integers.lengths is not None:
            of = jnp.where(tokens < integers.lengths[..., None], of, g.groups)
        keys, of = _sorted(jnp.where((of >= 0) & (of < g.groups), of, g.groups), g.groups)
        key_count = _counts(of, g.groups)
        key_start = jnp.cumsum(key_count, axis=-1, dtype=jnp.int32) - key_count
    query_start = jnp.cumsum(query_count, axis=-1, dtype=jnp.int32) - query_count
    live = (query_count > 0) & (key_count > 0)
    visited = jnp.argsort(~live, axis=-1, stable=True).astype(jnp.int32)
    number = jnp.sum(live, axis=-1, dtype=jnp.int32)
    filled = jnp.pad(queries, [(0, 0)] * 3 + [(0, part.block_q)], constant_values=part.n_q)
    return Schedule(filled, query_start, query_count, keys, key_start, key_count, visited, number)


def _chosen(g: Grouping, positions: jax.Array, fact: FactArray) -> jax.Array:
    """The groups that queries at positions [B | 1, 1, 1, T] name, [B | 1, K | 1, G | 1, T, choices]."""
    values, first = fact
    row = jnp.asarray(evaluate(g.row, {"q": positions}, None, jnp))
    rows = jnp.clip(row - first[..., 0], 0, values.shape[-2] - 1)
    index = jnp.asarray(evaluate(g.index, {"i": np.arange(g.choices)}, None, jnp)).reshape(-1)
    columns = jnp.clip(index, 0, values.shape[-1] - 1)
    if rows.shape[:3] == (1, 1, 1):
        return values[..., rows[0, 0, 0][:, None], columns]
    rows = jnp.broadcast_to(rows, (*values.shape[:3], rows.shape[-1]))
    return jnp.take_along_axis(values[..., columns], rows[..., None], axis=-2)


def _whole(facts: dict[Any, FactArray]) -> dict[Any, Any]:
    """Facts about keys begin at 0: the axes of lanes stay in front."""
    return {fact: FactArray(values, 0) for fact, (values, _) in facts.items()}


def _sorted(groups: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """The indices of the last axis, sorted by group and then by index; and their groups."""
    size = groups.shape[-1]
    index = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), groups.shape)
    groups = groups.astype(jnp.int32)
    if (most + 1) * size < SORT_LIMIT:  # one number is sorted several times faster than two
        both = jnp.sort(groups * size + index, axis=-1)
        return both % size, both // size
    groups, index = lax.sort((groups, index), dimension=-1, num_keys=2, is_stable=False)
    return index, groups


def _counts(sorted_groups: jax.Array, most: int) -> jax.Array:
    """How many of each group there are, of sorted groups."""
    flat = sorted_groups.reshape(-1, sorted_groups.shape[-1])
    counted = jax.vmap(lambda x: jnp.zeros(most, jnp.int32).at[x].add(1, mode="drop"))(flat)
    return counted.reshape(*sorted_groups.shape[:-1], most)
