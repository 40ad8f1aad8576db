"""One compiled function for many lengths: operands padded to a few lengths, exactly.

JAX compiles a program for every shape. Served sequences have every length there is; padded to buckets they
have a handful. Padding is exact where a pattern keeps, of the keys that exist, the same at the bucket's
length as at the sequence's own, which is checked for each length; where not (`global(tokens=[-1])`,
`local(ceil(sqrt(n)))`), the call is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall
from patterndsl.spec import check_positive, of_kind

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.ir.nodes import Node
    from patterndsl.ir.normal import Branch

SMALLEST = 256
"""The smallest bucket where none are given: below, a larger tile costs less than another compilation."""


class Bucketed:
    """An attention function that pads keys and queries to few lengths (see `Attention.bucketed`)."""

    def __init__(self, attention: Attention, lengths: Sequence[int] | None) -> None:
        self.attention = attention
        if lengths is not None:
            if not isinstance(lengths, Iterable):
                reason = f"a list of lengths is needed, not {lengths!r}"
                raise SpecError(BadCall(argument="lengths", reason=reason))
            for length in lengths:
                check_positive("lengths", length)
            if not lengths:
                raise SpecError(BadCall(argument="lengths", reason="at least one length is needed"))
        self.lengths = None if lengths is None else tuple(sorted({int(x) for x in lengths}))
        self._differs = functools.lru_cache(maxsize=65536)(functools.partial(_differs, attention))

    def __repr__(self) -> str:
        return f"{self.attention!r}.bucketed({'' if self.lengths is None else list(self.lengths)})"

    def bucket(self, n: int) -> int:
        """The length to which n is padded. Raises SpecError beyond the largest that was given."""
        if self.lengths is None:
            return max(SMALLEST, 1 << (n - 1).bit_length())
        fitting = next((x for x in self.lengths if x >= n), None)
        if fitting is None:
            reason = f"{n} keys do not fit the largest bucket, {self.lengths[-1]}"
            raise SpecError(BadCall(argument="k", reason=reason, advice="give `bucketed` a larger length"))
        return fitting

    def __call__(
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        bias: Any = None,
        q_offset: Any = None,
        kv_lengths: Any = None,
        gates: Any = None,
        return_lse: bool = False,
        **arguments: Any,
    ) -> Any:
        """As `Attention.__call__`, with the same arguments and the same answer.

        As many queries as keys are compiled for their bucket. Otherwise queries are padded to the next power
        of two and ``q_offset`` is known at run time only, so that no tile is skipped for where its queries
        are.
        """
        import numpy as np

        if arguments.get("state") is not None:
            reason = "what is added to fill a bucket would become a part of the stream"
            advice = "call the attention function itself: it is compiled for each length of a piece"
            raise SpecError(BadCall(argument="state", reason=reason, advice=advice))
        n_q, n = (np.shape(x)[-3] if np.ndim(x) >= 3 else 0 for x in (q, k))
        if not n_q or not n or np.shape(v)[-3:-2] != (n,):  # nothing to pad, or wrong, as it will say
            more = {"bias": bias, "q_offset": q_offset, "kv_lengths": kv_lengths, "gates": gates}
            return self.attention(q, k, v, return_lse=return_lse, **more, **arguments)
        bucket = self.bucket(n)
        together = n_q == n and q_offset is None
        bucket_q = bucket if together else 1 << (n_q - 1).bit_length()
        offset = n - n_q if q_offset is None else q_offset
        self._check(n, bucket, n_q, offset, np.shape(q)[-2])
        self._check_choice(n, n_q, bucket_q, offset)
        kinds = self.attention.spec.module.inputs
        own = {name: arguments.pop(name) for name in of_kind("token", kinds, arguments)}
        padded = {name: _pad(x, bucket, -1, last=True) for name, x in own.items()}
        out = self.attention(
            _pad(q, bucket_q, -3),
            _pad(k, bucket, -3),
            _pad(v, bucket, -3),
            bias=None if bias is None else _pad(_pad(bias, bucket, -1), bucket_q, -2),
            q_offset=0 if together else np.asarray(offset, np.int32) if isinstance(offset, int) else offset,
            kv_lengths=_at_most(n, kv_lengths, np.shape(k)[0] if np.ndim(k) == 4 else 1),
            gates=None if gates is None else _pad(gates, bucket_q, -3),
            return_lse=return_lse,
            **padded,
            **arguments,
        )
        if return_lse:
            return _first(out[0], n_q, -3), _first(out[1], n_q, -2)
        return _first(out, n_q, -3)

    def _check(self, n: int, bucket: int, n_q: int, offset: Any, num_heads: int) -> None:
        """Raise SpecError unless the pattern means the same at both lengths, where the queries are."""
        if isinstance(offset, int):
            first, last = offset, offset + n_q - 1
        else:
            first, last = -(n + n_q), n + n_q
        reason = self._differs(n, bucket, min(first, 0), max(last, n - 1), num_heads)
        if reason is not None:
            advice = "call the attention function itself: it is compiled for each length"
            raise SpecError(BadCall(argument="k", reason=reason, advice=advice))

    def _check_choice(self, n: int, n_q: int, bucket_q: int, offset: Any) -> None:
        """Raise SpecError where queries that are there for the padding alone would choose with the others:
        those at the position of a key that exists."""
        after_all = isinstance(offset, int) and offset + n_q >= n
        if bucket_q == n_q or after_all or not self.attention.module.main.holds_choice:
            return
        reason = "padding might change what is chosen from q and k, as the last query is not at the last key"
        advice = "leave out `q_offset`, give a power of two of queries, or call the attention function itself"
        raise SpecError(BadCall(argument="q_offset", reason=reason, advice=advice))


def _differs(attention: Attention, n: int, bucket: int, first: int, last: int, num_heads: int) -> str | None:
    """Why the pattern at n keys is not the one at ``bucket`` keys of which n exist; None where it is."""
    from patterndsl.api import head_nodes
    from patterndsl.ir.normal import branches

    sizes = (n, bucket)
    groups = [head_nodes(attention.module, size, num_heads) for size in sizes]
    by_head = [{head: node for heads, node in g for head in heads} for g in groups]
    for a, b in dict.fromkeys(zip(*([g[h] for h in range(num_heads)] for g in by_head), strict=True)):
        for x, y in [(a, b), *((p, p) for p in _chosen_among(a))]:
            pair = [branches(node, size) for node, size in zip((x, y), sizes, strict=True)]
            if len(pair[0]) != len(pair[1]) or not all(
                _same(own, padded, n, first, last) for own, padded in zip(*pair, strict=True)
            ):
                whole = f"that at {bucket}, to which they would be padded"
                return f"the pattern at {n} keys is not shown to be a part of {whole}"
    return None


def _chosen_among(node: Node) -> Iterator[Node]:
    """What the choices of a pattern are made among. (Choices that differ at two lengths make predicates that
    do, which are then not taken for the same.)"""
    from patterndsl.ir.nodes import Pattern
    from patterndsl.ir.normal import walk

    for p in walk(node):
        if isinstance(p, Pattern) and p.holds_choice:
            yield from p.children


def _same(a: Branch, b: Branch, n: int, first: int, last: int) -> bool:
    """Whether two branches keep and count the same slots of n tokens, for queries ``first`` … ``last``."""
    from patterndsl.analysis.quadtree import tally
    from patterndsl.ir.expr import where
    from patterndsl.ir.interval import Env, Interval
    from patterndsl.ir.normal import NOTHING, TOKENS, slot_index
    from patterndsl.ir.ranges import simplify_over

    for pool in {**a, **b}:
        slots = n if pool is TOKENS else pool.chunks(n)
        slot = str(slot_index(pool).value)
        env: Env = {"q": Interval(first, last), slot: Interval(0, slots - 1)}
        x, y = (branch.get(pool, NOTHING) for branch in (a, b))
        keep = [simplify_over(t.keep, env) for t in (x, y)]
        odd = where((keep[0] & ~keep[1]) | (keep[1] & ~keep[0]), 1, 0)
        if x.count is not y.count:
            amounts = [simplify_over(t.amount, env) for t in (x, y)]
            odd = where(amounts[0].eq(amounts[1]), 0, 1) if amounts[0] is not amounts[1] else odd
        if keep[0] is keep[1] and x.count is y.count:
            continue
        if odd.reads_data() or tally(odd, slot, first, last - first + 1, slots, rows=False).upper:
            return False
    return True


def _pad(x: Any, size: int, axis: int, last: bool = False) -> Any:
    """``x`` with zeros (or its last value) after its end. What is in the host's memory is padded there: JAX
    would compile a program for each shape."""
    import jax.numpy as jnp
    import numpy as np

    x = np.asarray(x) if isinstance(x, (list, tuple)) else x
    missing = size - x.shape[axis]
    if not missing:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    numpy = np if _on_host(x) else jnp
    return numpy.pad(np.asarray(x) if numpy is np else x, widths, mode="edge" if last else "constant")


def _first(x: Any, size: int, axis: int) -> Any:
    """The first ``size`` elements along an axis."""
    import jax
    import numpy as np

    if x.shape[axis] == size:
        return x
    kept: Any = (..., slice(size), *[slice(None)] * (-axis - 1))
    return jax.device_put(np.asarray(x)[kept].copy()) if _on_host(x) else x[kept]


def _on_host(x: Any) -> bool:
    """Whether an array's values are in the host's memory."""
    import jax
    import numpy as np

    if isinstance(x, np.ndarray):
        return True
    traced = isinstance(x, jax.core.Tracer)
    return isinstance(x, jax.Array) and not traced and {d.platform for d in x.devices()} == {"cpu"}


def _at_most(n: int, kv_lengths: Any, batch: int) -> Any:
    """``kv_lengths`` [batch], none beyond n."""
    import jax.numpy as jnp
    import numpy as np

    if kv_lengths is None:
        return np.full(batch, n, np.int32)
    return (
        np.minimum(kv_lengths, n)
        if isinstance(kv_lengths, np.ndarray)
        else jnp.minimum(jnp.asarray(kv_lengths), n)
    )
