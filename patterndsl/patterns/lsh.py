"""`lsh`: keys that hash as the query does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from patterndsl.ir.expr import Expr, K, Q, any_of
from patterndsl.ir.nodes import Node, Pattern, Where, fact
from patterndsl.patterns.base import Number, Size, pattern
from patterndsl.patterns.random import uniform

if TYPE_CHECKING:
    import jax
    import numpy as np
    import numpy.typing as npt

    from patterndsl.backends.facts import Data, FactArray

MOST_ROUNDS = 64
LARGEST_MATRICES = 2**28  # bytes


@pattern
class Lsh(Pattern):
    """Keys with the query's bucket in any of `rounds` hashes, once each. A hash draws a Gaussian matrix R
    [head_dim, buckets/2] from (seed, round), the same on every platform; the bucket of x is the place of the
    largest number of [xR, −xR]. The length of x does not matter to it, so that a model with shared queries
    and keys passes `pd.shared_keys(q)` as keys, which are in their queries' buckets, up to rounding (`| self`
    makes sure that a query sees itself). What published implementations add to make that fast (sorting,
    chunks of fixed size) is not part of the definition."""

    name = "lsh"
    growth = "by data: n²·rounds/buckets, where buckets fill evenly"
    source = (
        "Kitaev et al. 2020 (Reformer), arXiv:2001.04451, section 2; Andoni et al. 2015, arXiv:1509.02897"
    )
    examples = ("lsh(4)", "causal & (lsh(8, rounds=2, seed=3) | self)")

    buckets: Size
    rounds: Size = Expr("const", (), 1)
    seed: Number = Expr("const", (), 0)

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import bad

        if self.buckets.number is not None and self.buckets.number % 2:
            bad(self, f"`buckets` is even, half of them for each sign, but is {self.buckets.number}", n)
        if self.rounds.number is not None and self.rounds.number > MOST_ROUNDS:
            bad(self, f"{self.rounds.number} rounds, of at most {MOST_ROUNDS}", n)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return any_of(*(self.meet(r, q, k) for r in range(int(self.rounds))))

    def meet(self, r: int, q: Expr, k: Expr) -> Expr:
        """They have the same bucket in a round."""
        return fact(self, "queries", q, r).eq(fact(self, "keys", k, r))

    def members(self, n: int) -> tuple[Node, ...]:
        if self.rounds.number == 1:
            return (self,)
        return tuple(Where(self.meet(r, Q, K)) for r in range(int(self.rounds)))

    def facts(self, x: Data) -> Mapping[str, FactArray]:
        """``queries`` [B, N, T, rounds] and ``keys`` [B, N, n, rounds]: the bucket of each."""
        import jax.numpy as jnp

        from patterndsl.backends.facts import FactArray, by_slices

        self.refuse_beyond_memory(x.k.shape[-1])
        rotations, work = self.rotations(x.k.shape[-1]), int(self.buckets) * x.per_query

        def hashed(vectors: jax.Array) -> jax.Array:
            def some(i: jax.Array) -> jax.Array:
                return jnp.moveaxis(self.hashed(vectors[:, i], rotations, x.kernel), 1, 2)

            return by_slices(vectors.shape[1], work, some)

        batch, n_q, groups, per_group, head_dim = x.q.shape
        queries = hashed(x.q.reshape(batch, n_q, groups * per_group, head_dim))
        keys = jnp.repeat(hashed(x.k), per_group, axis=1)
        return {"queries": FactArray(queries, x.q_offset), "keys": FactArray(keys)}

    def largest(self, name: str) -> int:
        return int(self.buckets) - 1

    def refuse_beyond_memory(self, head_dim: int) -> None:
        """Raise `SpecError` where the matrices are too large."""
        from patterndsl.diagnostics import PlanTooLarge, SpecError

        needed = 2 * head_dim * int(self.buckets) * int(self.rounds)
        if needed > LARGEST_MATRICES:
            advice = "fewer buckets and fewer rounds need less"
            what = "the matrices of `lsh`"
            raise SpecError(PlanTooLarge(what=what, needed=needed, limit=LARGEST_MATRICES, advice=advice))

    def rotations(self, head_dim: int) -> npt.NDArray[np.float32]:
        """The matrices R, [rounds, head_dim, buckets/2]: normally distributed (Box and Muller 1958)."""
        import numpy as np

        half = int(self.buckets) // 2
        found = []
        for i in range(int(self.rounds)):
            a, b = (uniform(int(self.seed), head_dim * half, 2 * i + j) for j in (0, 1))
            found.append(np.sqrt(-2 * np.log(a)) * np.cos(2 * np.pi * b))
        return np.stack(found).reshape(-1, head_dim, half).astype(np.float32)

    def hashed(self, x: jax.Array, rotations: npt.NDArray[np.float32], kernel: str = "") -> jax.Array:
        """The bucket of each vector [..., H] in each round, int32 [..., rounds]; 0 for NaN."""
        import jax.numpy as jnp

        from patterndsl.backends.facts import dot, largest_of_both_signs

        buckets = []
        for r in rotations:
            turned = dot("...h,hb->...b", x, jnp.asarray(r, x.dtype))
            buckets.append(largest_of_both_signs(turned, kernel))
        return jnp.stack(buckets, axis=-1)
