"""`cluster`: queries and keys that the same centroid takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from patterndsl.ir.expr import Expr, all_of, any_of, as_expr, minimum, quantify, var
from patterndsl.ir.nodes import Node, Pattern, fact
from patterndsl.patterns.base import Centroids, Size, pattern
from patterndsl.patterns.select import FEW, LARGEST_CHOICE

if TYPE_CHECKING:
    import jax

    from patterndsl.backends.facts import Data, FactArray


@pattern
class Cluster(Pattern):
    """Keys that one of the `k` centroids took, where it took the query too. Of the queries, and apart from
    them of the keys, a centroid takes the `size` vectors whose products with it are largest, after they are
    divided by their lengths (all, where there are no more): the lower position of equals, NaN last. A vector
    may be taken by several centroids, whose pairs count once, or by none, and a query then sees nothing.
    Keys beyond `kv_lengths` do not exist; queries beyond the last key have no part in it. `centroids` is a
    run-time input of that kind, [k, head_dim] for all query heads or [heads, k, head_dim]; no gradient flows
    through the choice, nor to them (`pd.update_centroids` moves them). Where the published model is causal,
    it shares queries and keys: pass the queries as keys, and both are taken alike. It also compares layer
    normalised vectors: pass them so. A centroid takes among all positions: `causal & cluster(…)`, as
    published, masks the future, but what was taken depends on it; and a part of the queries, as in decoding,
    is taken as if it were all of them."""

    name = "cluster"
    growth = "k·size²: n^1.5, where k and size grow as √n"
    source = "Roy et al. 2020 (Routing Transformer), arXiv:2003.05997, section 4.1"
    examples = ("cluster(4, 8, centroids=mu)", "causal & (cluster(k=3, size=6, centroids=mu) | local(3))")

    k: Size
    size: Size
    centroids: Centroids

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        def both(c: Expr | int) -> Expr:
            return all_of(fact(self, "queries", q, c).eq(1), fact(self, "keys", k, c).eq(1))

        count = int(self.k)
        if count <= FEW:
            return any_of(*(both(c) for c in range(count)))
        return quantify("exists", "i", as_expr(0), as_expr(count - 1), both(var("i")), count)

    def pairs(self, n: Expr) -> Expr:
        return minimum(self.k * self.size * self.size, n * n)

    def facts(self, x: Data) -> Mapping[str, FactArray]:
        """``queries`` [B, N, T, k], ``keys`` [B, N, n, k]: 1 where the centroid takes the vector, else 0."""
        import jax.numpy as jnp

        from patterndsl.backends.facts import FactArray

        self.refuse_beyond_memory(x)
        centroids = self.of_call(x)
        each, groups = x.q, x.q.shape[3]
        keys = x.k[:, :, :, None]
        if centroids.ndim == 4:  # those of each query head compare all keys of its key head
            keys = jnp.repeat(keys, groups, axis=3)
        there = x.q_offset + jnp.arange(x.n_q) < x.lengths[:, None]
        exists = jnp.arange(x.n) < x.lengths[:, None]
        return {
            "queries": FactArray(self.taken(each, centroids, there, x.per_query, x.kernel), x.q_offset),
            "keys": FactArray(
                jnp.repeat(
                    self.taken(keys, centroids, exists, x.per_query, x.kernel),
                    groups // keys.shape[3],
                    axis=1,
                )
            ),
        }

    def largest(self, name: str) -> int:
        return 1

    def per_column(self, name: str, n: int) -> int:
        return min(int(self.size), n)

    def of_call(self, x: Data) -> jax.Array:
        """The centroids, [k, H] or [K, G, k, H]. Raises `SpecError` where there are not k."""
        from patterndsl.diagnostics import InputShape, SpecError

        found, count, head_dim = x.centroids[self.centroids], int(self.k), x.k.shape[-1]
        groups, per_group = x.q.shape[2:4]
        if found.shape[-2] != count:
            expected = f"[{count}, {head_dim}] or [{groups * per_group}, {count}, {head_dim}]"
            raise SpecError(InputShape(name=self.centroids, shape=tuple(found.shape), expected=expected))
        return found if found.ndim == 2 else found.reshape(groups, per_group, count, head_dim)

    def taken(
        self, x: jax.Array, centroids: jax.Array, may: jax.Array, per_query: int, kernel: str
    ) -> jax.Array:
        """Whether each centroid takes each vector [B, T, K, G, H] of those that ``may`` [B | 1, T] be taken:
        int8 0 or 1, [B, K·G, T, k]."""
        import jax.numpy as jnp

        from patterndsl.backends.facts import best, by_slices, dot

        x = directions(x)
        batch, n, groups, per_group, _ = x.shape
        spec = "ch,btkgh->bkgct" if centroids.ndim == 2 else "kgch,btkgh->bkgct"

        def some(i: jax.Array) -> jax.Array:
            scores = dot(spec, centroids[..., i, :], x).reshape(batch, 1, -1, n)
            index = best(scores, may[:, None], min(int(self.size), n), kernel)[:, 0]
            return index.reshape(batch, groups * per_group, len(i), index.shape[-1])

        index = by_slices(int(self.k), n * per_query, some)  # [B, K·G, k, size]
        place = jnp.where(index < 0, n, index)
        heads, count = index.shape[1:3]
        own = jnp.arange(batch)[:, None, None, None], jnp.arange(heads)[:, None, None]
        # Marked where they belong, so that as many bytes need no transposing.
        none = jnp.zeros((batch, heads, n, count), jnp.int8)
        return none.at[(*own, place, jnp.arange(count)[:, None])].set(1, mode="drop")

    def refuse_beyond_memory(self, x: Data) -> None:
        """Raise `SpecError` where the choice, a byte for each vector and centroid, is too much."""
        from patterndsl.diagnostics import PlanTooLarge, SpecError

        needed = (x.n_q + x.n) * int(self.k) * x.per_query
        if needed > LARGEST_CHOICE:
            what, advice = "the choice of `cluster`", "fewer centroids need less"
            raise SpecError(PlanTooLarge(what=what, needed=needed, limit=LARGEST_CHOICE, advice=advice))


def directions(x: jax.Array) -> jax.Array:
    """Vectors divided by their lengths: 0 stays 0, and a vector that is not finite has NaN in it."""
    import jax
    import jax.numpy as jnp

    # First, so that no square is 0 or ∞; it makes no difference, and so has no gradient either.
    most = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / jnp.where(most > 0, most, 1)
    length = jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)


def centroid_counts(nodes: Iterable[Node]) -> dict[str, int]:
    """How many centroids patterns, bound at n, want of each input."""
    from patterndsl.ir.normal import postorder

    return {p.centroids: int(p.k) for p in postorder(*nodes) if isinstance(p, Cluster)}
