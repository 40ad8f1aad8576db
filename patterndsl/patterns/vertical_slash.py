"""`vertical_slash`: columns and diagonals chosen by what the last queries attend to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from patterndsl.ir.expr import Expr, all_of, any_of, minimum
from patterndsl.ir.nodes import Pattern, fact
from patterndsl.patterns.base import Count, Size, pattern

if TYPE_CHECKING:
    import jax

    from patterndsl.backends.facts import Data, FactArray


@pattern
class VerticalSlash(Pattern):
    """Keys k ≤ q in one of the `vertical` columns or on one of the `slash` diagonals q − k that get the most
    from the last `last` queries: the sum of their causal softmax, of logits before softcap and bias, over the
    column or the diagonal. Of equal sums the lower column and the nearer diagonal comes first, and NaN last.
    The first `first` columns and the `near` nearest diagonals are chosen before all others, and count. The
    last queries are those of the call that stand at a key that exists, and there are as many columns and
    diagonals as keys exist; each query head chooses by itself."""

    name = "vertical_slash"
    growth = "n·(vertical + slash)"
    source = "Jiang et al. 2024 (MInference), arXiv:2407.02490"
    examples = ("vertical_slash(4, 6, last=8)", "vertical_slash(3, 5, last=16, first=1, near=2) & local(40)")

    vertical: Count
    slash: Count
    last: Size = Expr("const", (), 64)
    first: Count = Expr("const", (), 0)
    near: Count = Expr("const", (), 0)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return all_of(k <= q, any_of(fact(self, "columns", k).eq(1), fact(self, "diagonals", q - k).eq(1)))

    def pairs(self, n: Expr) -> Expr:
        return minimum(n * (self.vertical + self.slash), n * n)

    def facts(self, x: Data) -> Mapping[str, FactArray]:
        """``columns``, ``diagonals`` [B, N, n + 1]: 1 where chosen, else 0, as at the end, which all farther
        diagonals read."""
        from patterndsl.backends.facts import FactArray

        columns, diagonals = self.sums(x)
        chosen = {
            "columns": _chosen(columns, x.lengths, int(self.vertical), int(self.first)),
            "diagonals": _chosen(diagonals, x.lengths, int(self.slash), int(self.near)),
        }
        return {name: FactArray(values) for name, values in chosen.items()}

    def largest(self, name: str) -> int:
        return 1

    def sums(self, x: Data) -> tuple[jax.Array, jax.Array]:
        """What the last queries give each column and each diagonal, [B, K, G, n] both."""
        import jax.numpy as jnp
        from jax import lax

        from patterndsl.backends.facts import dot

        last = min(int(self.last), x.n_q)
        # Past the position of the last one, [B | 1]; positions beyond the keys may reach the end of int32.
        end = jnp.minimum(jnp.minimum(x.q_offset, x.n) + x.n_q, x.lengths)
        k = jnp.arange(x.n)

        def add(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            position = (end - last + i)[:, None]
            index = position - x.q_offset
            there = (index >= 0) & (index < x.n_q)
            row = jnp.clip(index, 0, x.n_q - 1)[..., None, None, None]
            q = jnp.take_along_axis(x.q, row, axis=1)[:, 0] * x.scale
            seen = (there & (k <= position) & (k < x.lengths[:, None]))[:, None, None]
            logits = jnp.where(seen, dot("bkgh,bskh->bkgs", q, x.k), -jnp.inf)
            top = jnp.max(logits, axis=-1, keepdims=True)
            weights = jnp.where(seen, jnp.exp(logits - jnp.where(top == -jnp.inf, 0.0, top)), 0.0)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            weights = weights / jnp.where(total == 0, 1.0, total)
            source = position - k  # of a diagonal, the key on it
            inside = jnp.broadcast_to(jnp.clip(source, 0, x.n - 1)[:, None, None], weights.shape)
            along = jnp.take_along_axis(weights, inside, axis=-1)
            along = jnp.where(((source >= 0) & (source < x.n))[:, None, None], along, 0.0)
            return sums[0] + weights, sums[1] + along

        batch, _, groups, per_group, _ = x.q.shape
        zeros = jnp.zeros((batch, groups, per_group, x.n), x.q.dtype)
        summed: tuple[jax.Array, jax.Array] = lax.fori_loop(0, last, add, (zeros, zeros))
        return summed


def _chosen(sums: jax.Array, lengths: jax.Array, count: int, certain: int) -> jax.Array:
    """1 at the ``count`` largest sums, of which the first ``certain`` are the largest; [B, N, n + 1]."""
    import jax.numpy as jnp

    from patterndsl.backends.facts import largest, numbers

    batch, groups, per_group, n = sums.shape
    sums = numbers(sums).reshape(batch, groups * per_group, n)
    sums = jnp.where(jnp.arange(n) < certain, jnp.inf, sums)
    exists = jnp.arange(n + 1) < lengths[:, None, None]
    index, _ = largest(jnp.where(exists[..., :n], sums, -jnp.inf), min(count, n))
    rows, heads = jnp.arange(batch)[:, None, None], jnp.arange(groups * per_group)[None, :, None]
    chosen = jnp.zeros((batch, groups * per_group, n + 1), jnp.int32).at[rows, heads, index].set(1)
    return jnp.where(exists, chosen, 0)
