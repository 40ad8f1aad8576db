"""Which queries meet which keys, where groups bring them together: found on the device."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from patterndsl.backends.facts import FactArray
from patterndsl.backends.xla.logits import Settings
from patterndsl.backends.xla.order import Order, pad
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr, K
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.grouping import WORD, most_keys, most_queries
from patterndsl.plan.plan import Grouping, Membership, Part, Source

Facts: TypeAlias = dict[Any, FactArray]
SORT_LIMIT = 2**31  # numbers up to which a group and an index are sorted as one


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedPass:
    """A part with groups made ready, for ``n`` keys and ``n_q`` queries as they come."""

    block_q: int
    block_k: int
    source: Source
    grouping: Grouping | Membership
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
    """Per lane (a sequence's query head), [B, K, G, …]: ``queries`` those of each group, group after group
    (`n_q` where there is none); ``query_start``, ``query_count`` for each group; ``keys`` the tokens, group
    after group, where they are not as they come (`n` where there is none); ``key_start``, ``key_count``;
    ``visited`` the groups that have both, and their ``number``. Where a query and a key may be in several
    groups, ``of_queries`` and ``of_keys`` say in which, 32 groups in an integer."""

    queries: jax.Array
    query_start: jax.Array
    query_count: jax.Array
    keys: jax.Array | None
    key_start: jax.Array
    key_count: jax.Array
    visited: jax.Array
    number: jax.Array
    of_queries: jax.Array | None = None
    of_keys: jax.Array | None = None


def schedule(settings: Settings, part: GroupedPass, integers: Integers, lanes: tuple[Any, ...]) -> Schedule:
    """Which queries meet which keys. ``lanes``: the sizes of B, K and G."""
    facts = {
        fact: FactArray(values, first[..., None, None])
        for fact, values, first in zip(settings.facts, integers.facts, integers.first, strict=True)
    }
    positions = integers.q_offset[..., None] + jnp.arange(part.n_q, dtype=jnp.int32)
    if isinstance(part.grouping, Membership):
        return _taken(part, part.grouping, positions, facts, integers.lengths, lanes)
    return _named(part, part.grouping, positions, facts, integers.lengths, lanes)


def _named(
    part: GroupedPass,
    g: Grouping,
    positions: jax.Array,
    facts: Facts,
    lengths: jax.Array | None,
    lanes: tuple[Any, ...],
) -> Schedule:
    """Each query names groups, and is sorted by them."""
    index = jnp.asarray(evaluate(g.index, {"i": np.arange(g.choices)}, None, jnp)).reshape(-1)
    choices = _at(g.row, index, positions, facts[g.fact])
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
        if lengths is not None:
            of = jnp.where(tokens < lengths[..., None], of, g.groups)
        keys, of = _sorted(jnp.where((of >= 0) & (of < g.groups), of, g.groups), g.groups)
        key_count = _counts(of, g.groups)
        key_start = jnp.cumsum(key_count, axis=-1, dtype=jnp.int32) - key_count
    query_start = jnp.cumsum(query_count, axis=-1, dtype=jnp.int32) - query_count
    return _made(part, queries, (query_start, query_count), keys, (key_start, key_count))


def _taken(
    part: GroupedPass,
    g: Membership,
    positions: jax.Array,
    facts: Facts,
    lengths: jax.Array | None,
    lanes: tuple[Any, ...],
) -> Schedule:
    """Groups take queries and keys, and list them."""
    groups = jnp.arange(g.groups, dtype=jnp.int32)
    ends = most_queries(g, part.n_q), most_keys(g, part.n) or part.n
    of_queries = _at(g.row, groups, positions, facts[g.queries]) == 1
    of_keys = _at(K, groups, jnp.arange(part.n, dtype=jnp.int32)[None, None, None], facts[g.keys], "k") == 1
    if lengths is not None:
        of_keys = of_keys & (jnp.arange(part.n) < lengths[..., None])[..., None]
    of_queries, of_keys = (jnp.broadcast_to(x, (*lanes, *x.shape[3:])) for x in (of_queries, of_keys))
    queries, keys = (_listed(x, end) for x, end in zip((of_queries, of_keys), ends, strict=True))
    spans = [
        (jnp.broadcast_to(groups * end, (*lanes, g.groups)), jnp.sum(x, axis=-2, dtype=jnp.int32))
        for x, end in zip((of_queries, of_keys), ends, strict=True)
    ]
    made = _made(part, queries, spans[0], keys, spans[1])
    return made._replace(of_queries=_packed(of_queries, -1), of_keys=_packed(of_keys, -1))


def _listed(taken: jax.Array, end: int) -> jax.Array:
    """The indices that each group takes, [B, K, G, size, groups] → [B, K, G, groups · end]: ascending, and
    ``size`` where there are no more. The j-th is found in the word where the count of its group reaches j."""
    *lanes, size, groups = taken.shape
    bits = jnp.swapaxes(_packed(taken, axis=-2), -1, -2)
    counts = jnp.cumsum(lax.population_count(bits).astype(jnp.int32), axis=-1)
    wanted = jnp.arange(1, end + 1, dtype=jnp.int32)
    flat = counts.reshape(-1, counts.shape[-1])
    word = jax.vmap(lambda x: jnp.searchsorted(x, wanted))(flat).astype(jnp.int32)
    word = word.reshape(*counts.shape[:-1], end)
    before = jnp.take_along_axis(counts, jnp.maximum(word - 1, 0), axis=-1)
    rank = wanted - jnp.where(word > 0, before, 0)
    here = jnp.take_along_axis(bits, jnp.minimum(word, bits.shape[-1] - 1), axis=-1)
    found = jnp.where(word < bits.shape[-1], word * WORD + _nth(here, rank), size)
    return found.reshape(*lanes, groups * end)


def _nth(word: jax.Array, rank: jax.Array) -> jax.Array:
    """The place of the set bit of that rank, from 1, by halves."""
    place = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        below = lax.population_count(word & jnp.uint32(2**half - 1)).astype(jnp.int32)
        above = rank > below
        rank = jnp.where(above, rank - below, rank)
        word = jnp.where(above, word >> half, word)
        place = jnp.where(above, place + half, place)
    return place


def _packed(taken: jax.Array, axis: int) -> jax.Array:
    """Truth values as integers of 32 each, along an axis."""
    at, words = axis % taken.ndim, math.ceil(taken.shape[axis] / WORD)
    wide = pad(taken, words * WORD, axis)
    wide = wide.reshape(*taken.shape[:at], words, WORD, *taken.shape[at + 1 :]).astype(jnp.uint32)
    shifts = jnp.arange(WORD, dtype=jnp.uint32).reshape(-1, *[1] * (taken.ndim - at - 1))
    return jnp.sum(wide << shifts, axis=at + 1, dtype=jnp.uint32)


def earlier(group: jax.Array, words: int) -> jax.Array:
    """The bits of the groups before one, [words]."""
    known = jnp.clip(group - jnp.arange(words, dtype=jnp.int32) * WORD, 0, WORD)
    ones = jnp.uint32(0xFFFFFFFF)
    return jnp.where(known == WORD, ones, ~(ones << known.astype(jnp.uint32)))


def _made(
    part: GroupedPass,
    queries: jax.Array,
    of_queries: tuple[jax.Array, jax.Array],
    keys: jax.Array | None,
    of_keys: tuple[jax.Array, jax.Array],
) -> Schedule:
    """Where each group's queries and keys start and how many there are, with what follows from that."""
    live = (of_queries[1] > 0) & (of_keys[1] > 0)
    visited = jnp.argsort(~live, axis=-1, stable=True).astype(jnp.int32)
    number = jnp.sum(live, axis=-1, dtype=jnp.int32)
    filled = jnp.pad(queries, [(0, 0)] * 3 + [(0, part.block_q)], constant_values=part.n_q)
    return Schedule(filled, *of_queries, keys, *of_keys, visited, number)


def _at(row: Expr, index: jax.Array, positions: jax.Array, fact: FactArray, name: str = "q") -> jax.Array:
    """A fact in the rows of positions [B | 1, 1, 1, T] and columns ``index`` [I], [B | 1, K | 1, G | 1, T,
    I]."""
    values, first = fact
    row_of = jnp.asarray(evaluate(row, {name: positions}, None, jnp))
    rows = jnp.clip(row_of - first[..., 0], 0, values.shape[-2] - 1)
    columns = jnp.clip(index, 0, values.shape[-1] - 1)
    if rows.shape[:3] == (1, 1, 1):
        return values[..., rows[0, 0, 0][:, None], columns]
    rows = jnp.broadcast_to(rows, (*values.shape[:3], rows.shape[-1]))
    return jnp.take_along_axis(values[..., columns], rows[..., None], axis=-2)


def _whole(facts: Facts) -> dict[Any, Any]:
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
