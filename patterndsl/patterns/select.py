"""`select`: key blocks chosen by their score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeAlias

from patterndsl.ir.expr import C, Expr, any_of, as_expr, maximum, minimum, quantify, var
from patterndsl.ir.nodes import Pattern, fact
from patterndsl.patterns.base import Count, Kind, Operand, Share, Size, pattern
from patterndsl.patterns.full import Full

if TYPE_CHECKING:
    import jax

    from patterndsl.backends.facts import Data, FactArray

FEW = 16  # blocks that are compared one by one; more in a loop
LARGEST_CHOICE = 2**33  # bytes that a choice may take
EXISTING = var("existing")
"""The number of keys that exist, in the predicate of the blocks that may be chosen."""

Per: TypeAlias = Annotated[str, Kind("string", choices=("query", "block"))]
By: TypeAlias = Annotated[str, Kind("string", choices=("mean", "max", "minmax"))]
Sharing: TypeAlias = Annotated[str, Kind("string", choices=("head", "group"))]


@pattern
class Select(Pattern):
    """Of the key blocks of which `among` keeps every token, the `k` with the largest scores (all, where there
    are no more). The score of a block is the query's product with the block's mean key (`by="mean"`), its
    largest product with a key of the block ("max"), or the bound on that from the keys' least and greatest
    coordinates ("minmax"); of equal scores the lower block is taken first, and NaN comes last.
    `per="block"`: the queries of each `block` positions choose together, by their mean, among the blocks that
    `among` keeps for every one of them; queries beyond the last key have no part in it. `mass=p`, in place of
    `k`: the fewest blocks, best first, whose share of the softmax over the scores reaches p.
    `share="group"`: query heads that share a key head choose together, by the sum of their scores. Keys
    beyond `kv_lengths` do not exist: a block is what it has of the others. Scores are logits, before softcap
    and bias; gradients flow through the attention, not through the choice."""

    name = "select"
    growth = "n·k·block"
    source = (
        "Lu et al. 2025 (MoBA), arXiv:2502.13189; Tang et al. 2024 (Quest), arXiv:2406.10774; Yuan et al. "
        "2025 (NSA), arXiv:2502.11089; Lai et al. 2025 (FlexPrefill), arXiv:2502.20766"
    )
    examples = (
        "select(2, block=8)",
        'causal & (select(2, 8, among=causal - chunked(8), by="minmax", share="group") | chunked(8))',
        'causal & (select(mass=0.7, block=4, among=causal, per="block", by="max") | chunked(4))',
    )

    k: Count | None = None
    block: Size = Expr("const", (), 64)
    among: Operand = Full()
    per: Per = "query"
    by: By = "mean"
    mass: Share | None = None
    share: Sharing = "head"

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import bad, one_of, without_choice

        one_of(self, ("k",), ("mass",))
        without_choice(self, self.among)
        if self.mass is not None and not 0 < self.mass <= 1:
            bad(self, f"`mass` is a share, more than 0 and at most 1, but is {self.mass:g}")

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        row, column = q if self.per == "query" else q // self.block, k // self.block
        if self.k is None:
            return fact(self, "kept", row, column).eq(1)
        count = int(self.k) if n.number is None else self.most(n.number)
        if count <= FEW:
            return any_of(*(fact(self, "chosen", row, i).eq(column) for i in range(count)))
        chosen = fact(self, "chosen", row, var("i")).eq(column)
        return quantify("exists", "i", as_expr(0), as_expr(count - 1), chosen, count)

    def blocks(self, n: int) -> int:
        """The number of blocks, the ragged last one included."""
        return -(-n // int(self.block))

    def most(self, n: int) -> int:
        """How many blocks are named for each query: `k`, where those are few, so that the predicate is the
        same at every n; no more than there are, where many."""
        assert self.k is not None
        return int(self.k) if int(self.k) <= FEW else min(int(self.k), max(self.blocks(n), FEW))

    def pairs(self, n: Expr) -> Expr:
        return n * n if self.k is None else minimum(n * self.k * self.block, n * n)

    def allowed(self, n: int) -> Expr:
        """Which blocks `among` keeps: over ``q``, the block's number ``c`` and `EXISTING`."""
        from patterndsl.ir.normal import token_terms
        from patterndsl.ir.quantifiers import forall

        size = min(int(self.block), n)
        first = C * size
        last = maximum(minimum(minimum(first + size, n), EXISTING) - 1, first)  # not empty, where it counts
        return forall("k", first, last, token_terms(self.among, as_expr(n)).keep, size)

    def facts(self, x: Data) -> Mapping[str, FactArray]:
        """``chosen`` [B, N, rows, k]: numbers of blocks, −1 where there are no more; or, with ``mass``,
        ``kept`` [B, N, rows, blocks]: 0 or 1. Rows are queries, or blocks of queries."""
        from patterndsl.backends.facts import FactArray, by_slices

        self.refuse_beyond_memory(x)
        scorer = _Scorer(self, x)
        if self.per == "query":
            made = by_slices(x.n_q, scorer.work, lambda i: scorer.choose(*scorer.queries(i)))
            return {self.field: FactArray(made, x.q_offset)}
        block = scorer.block
        first = x.q_offset // block
        if isinstance(x.q_offset, int):
            rows = (x.q_offset + x.n_q - 1) // block - first + 1
        else:
            rows = (x.n_q + block - 2) // block + 1  # wherever the first one starts
        work = scorer.work * min(block, x.n_q)
        made = by_slices(rows, work, lambda i: scorer.choose(*scorer.query_blocks(first + i)))
        return {self.field: FactArray(made, first)}

    def largest(self, name: str) -> int:
        return 1 if name == "kept" else max(2**30 // int(self.block), 1)

    def refuse_beyond_memory(self, x: Data) -> None:
        """Raise `SpecError` where the choice, an integer for each row and block chosen, is too much."""
        from patterndsl.diagnostics import PlanTooLarge, SpecError

        rows = x.n_q if self.per == "query" else -(-x.n_q // int(self.block))
        each = self.blocks(x.n) if self.k is None else 4 * self.most(x.n)
        needed = rows * each * x.per_query
        if needed > LARGEST_CHOICE:
            what, advice = "which blocks `select` keeps", "larger blocks and fewer of them need less"
            raise SpecError(PlanTooLarge(what=what, needed=needed, limit=LARGEST_CHOICE, advice=advice))

    @property
    def field(self) -> str:
        """The fact that it reads."""
        return "kept" if self.k is None else "chosen"


class _Scorer:
    """The scores of the key blocks of one call, and the choice by them."""

    def __init__(self, p: Select, x: Data) -> None:
        import jax.numpy as jnp

        from patterndsl.patterns.checks import evaluable

        self.p, self.x = p, x
        self.block = min(int(p.block), 2**30)  # a larger one is no different: positions fit in 31 bits
        self.size, self.count = min(self.block, x.n), p.blocks(x.n)
        padding = [(0, 0), (0, self.count * self.size - x.n), (0, 0), (0, 0)]
        self.keys = jnp.pad(x.k, padding).reshape(x.k.shape[0], self.count, self.size, *x.k.shape[2:])
        tokens = jnp.arange(self.count * self.size).reshape(self.count, self.size)
        self.real = tokens < x.lengths[:, None, None]  # [B | 1, blocks, size]
        self.predicate = evaluable(p.allowed(x.n), x, {"c": self.count - 1, "existing": x.n})
        # Where queries meet all keys, four times as many at a time halve the time: few rows are slow.
        products = x.n // 4 if p.by == "max" else self.count
        self.work = products * x.per_query

    def queries(self, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Some queries [B, t, K, G, H], and the blocks that each may choose [B | 1, t, blocks]."""
        return self.x.q[:, index], self.kept_by_among(self.x.q_offset + index)

    def query_blocks(self, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean queries of some blocks, by their numbers, and the blocks that each may choose."""
        import jax.numpy as jnp

        x = self.x
        most = min(self.block, x.n_q)
        before = row[:, None] * self.block - x.q_offset  # queries of the call before the block
        index = jnp.maximum(before, 0) + jnp.arange(most)
        position = index + x.q_offset
        within = (index < x.n_q) & (index - before < self.block)
        member = within & (position < x.lengths[:, None, None])  # [B | 1, t, most]
        q = x.q[:, jnp.clip(index, 0, x.n_q - 1)]
        total = jnp.sum(jnp.where(member[..., None, None, None], q, 0), axis=2)
        members = jnp.sum(member, axis=2)
        mean = total / jnp.maximum(members, 1).astype(q.dtype)[..., None, None, None]
        kept = self.kept_by_among(position.reshape(-1))
        kept = kept.reshape(kept.shape[0], *index.shape, self.count)
        every = jnp.all(kept | ~member[..., None], axis=2)
        return mean, every & (members > 0)[..., None]

    def kept_by_among(self, position: jax.Array) -> jax.Array:
        """Whether `among` keeps every token of each block for queries at these positions, [B | 1, t,
        blocks]."""
        import jax.numpy as jnp

        from patterndsl.ir.evaluate import evaluate

        env = {
            "q": position[:, None],
            "c": jnp.arange(self.count)[None, :],
            "existing": self.x.lengths[:, None, None],
        }
        kept = jnp.asarray(evaluate(self.predicate, env, self.x.inputs, jnp))
        kept = jnp.broadcast_to(kept, (*kept.shape[:-2], len(position), self.count))
        return kept & jnp.any(self.real, axis=-1)[:, None]

    def choose(self, q: jax.Array, allowed: jax.Array) -> jax.Array:
        """The choice of queries [B, t, K, G, H], as `Select.facts` has it."""
        import jax.numpy as jnp

        from patterndsl.backends.facts import best, numbers

        scores = self.scores(q)  # [B, K, G, t, blocks]
        group = scores.shape[2]
        if self.p.share == "group":
            scores = jnp.sum(scores, axis=2, keepdims=True)
        if self.p.k is not None:
            most = self.p.most(self.x.n)
            rows = scores.reshape(scores.shape[0], -1, *scores.shape[3:])
            chosen = best(rows, allowed, min(most, self.count), self.x.kernel)
            chosen = chosen.reshape(*scores.shape[:-1], -1)
            missing = [(0, 0)] * (chosen.ndim - 1) + [(0, most - chosen.shape[-1])]
            chosen = jnp.pad(chosen, missing, constant_values=-1)
        else:
            assert self.p.mass is not None
            chosen = _by_mass(jnp.where(allowed[:, None, None], numbers(scores), -jnp.inf), self.p.mass)
        if self.p.share == "group":
            chosen = jnp.repeat(chosen, group, axis=2)
        batch, groups, per_group = chosen.shape[:3]
        return chosen.reshape(batch, groups * per_group, *chosen.shape[3:])

    def scores(self, q: jax.Array) -> jax.Array:
        """The score of each block for each query, [B, K, G, t, blocks]."""
        import jax.numpy as jnp

        from patterndsl.backends.facts import dot

        real = self.real[..., None, None]
        match self.p.by:
            case "mean":
                number = jnp.maximum(jnp.sum(self.real, axis=2), 1).astype(q.dtype)[..., None, None]
                return dot("bckh,btkgh->bkgtc", jnp.sum(self.keys, axis=2) / number * self.x.scale, q)
            case "max":
                each = dot("btkgh,bcskh->bkgtcs", q, self.keys) * self.x.scale
                return jnp.max(jnp.where(self.real[:, None, None, None], each, -jnp.inf), axis=-1)
        some, scaled = jnp.any(real, axis=2), self.keys * self.x.scale
        most = jnp.where(some, jnp.max(jnp.where(real, scaled, -jnp.inf), axis=2), 0)
        least = jnp.where(some, jnp.min(jnp.where(real, scaled, jnp.inf), axis=2), 0)
        # q·k of a coordinate is largest at the greatest key where q is positive, at the least where negative.
        above = dot("bckh,btkgh->bkgtc", most, jnp.maximum(q, 0))
        return above + dot("bckh,btkgh->bkgtc", least, jnp.minimum(q, 0))


def _by_mass(scores: jax.Array, mass: float) -> jax.Array:
    """Which blocks are the fewest whose share of the softmax reaches the mass: 0 or 1."""
    import jax.numpy as jnp

    from patterndsl.backends.facts import largest

    order, best = largest(scores, scores.shape[-1])
    may = best > -jnp.inf
    weights = jnp.where(may, jnp.exp(jnp.where(may, best - best[..., :1], 0.0)), 0.0)
    reached = jnp.cumsum(weights, axis=-1)
    kept = may & (reached - weights < mass * reached[..., -1:])
    place = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(kept, place, axis=-1).astype(jnp.int8)
