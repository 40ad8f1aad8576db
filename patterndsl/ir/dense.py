"""The dense meaning of a pattern: every slot of every query, counted. The definition that all else is tested
against.

Works on the tree as it stands, never on the normal form, and never for speed: memory is n_q × n.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr, K, Q, as_expr
from patterndsl.ir.nodes import (
    Complement,
    Difference,
    Intersection,
    Node,
    Pattern,
    Pool,
    Sum,
    SymmetricDifference,
    Union,
    Where,
)
from patterndsl.ir.normal import TOKENS, SummaryMisuse, has_summaries

Counts = dict[Pool, Any]


def dense(node: Node, q: Any, n: int, inputs: Mapping[str, Any] | None = None, xp: Any = np) -> Counts:
    """For each source of slots the counts, [..., len(q), slots]; sources that keep nothing may be absent.

    ``q``: positions of the queries. ``inputs``: run-time inputs, last axis n, and facts about q and k, as
    `ir.evaluate.evaluate` takes them; leading axes kept. The tree is
    bound at n (`ir.resolve.at_length`), with no calls, heads, layers or mixtures in it.
    """
    return _Dense(n, inputs or {}, xp).counts(node, q)


class _Dense:
    def __init__(self, n: int, inputs: Mapping[str, Any], xp: Any) -> None:
        self.n, self.inputs, self.xp = n, inputs, xp

    def predicate(self, e: Expr, q: Any, slots: int, index: str) -> Any:
        xp = self.xp
        env = {"q": xp.asarray(q)[:, None], index: xp.arange(slots)[None, :], "n": self.n}
        kept = xp.asarray(evaluate(e, env, self.inputs, xp))
        return xp.broadcast_to(kept, (*kept.shape[:-2], len(q), slots)).astype(np.int32)

    def tokens(self, node: Node, q: Any) -> Any:
        found = self.counts(node, q)
        return found.get(TOKENS, self.xp.zeros((len(q), self.n), np.int32))

    def counts(self, node: Node, q: Any) -> Counts:
        from patterndsl.patterns.transforms import Blocks, Shift, Transpose

        xp = self.xp
        match node:
            case Where():
                return {TOKENS: self.predicate(node.keep, q, self.n, "k")}
            case Transpose() | Shift() | Blocks():
                if has_summaries(node.p):
                    raise SummaryMisuse(f"{node.name}()", node.p)
                return {TOKENS: self.transform(node, q)}
            case Pattern():
                found = {TOKENS: self.predicate(node.keep(Q, K, as_expr(self.n)), q, self.n, "k")}
                for pool, keep in node.summaries(self.n):
                    found[pool] = self.predicate(keep, q, pool.chunks(self.n), "c")
                return found
            case Union():
                return self.join(node, q, xp.maximum)
            case Sum():
                return self.join(node, q, lambda a, b: a + b)
            case Intersection():
                return self.intersection(node, q)
            case SymmetricDifference():
                odd = sum(self.token_set(m, q, "^") for m in node.members) % 2
                return {TOKENS: odd}
            case Complement():
                return {TOKENS: 1 - self.token_set(node.operand, q, "~")}
            case Difference():
                self.token_set(node.right, q, "-")
                right, found = self.tokens(node.right, q), self.counts(node.left, q)
                kept = self.restrict(found, right == 0)
                return {**kept, TOKENS: xp.maximum(found.get(TOKENS, 0 * right) - right, 0)}
        raise TypeError(f"not resolved before its dense meaning: {node}")

    def token_set(self, node: Node, q: Any, symbol: str) -> Any:
        if has_summaries(node):
            raise SummaryMisuse(symbol, node)
        return (self.tokens(node, q) > 0).astype(np.int32)

    def join(self, node: Union | Sum, q: Any, two: Any) -> Counts:
        found: Counts = {}
        for m in node.members:
            for pool, counts in self.counts(m, q).items():
                found[pool] = two(found[pool], counts) if pool in found else counts
        return found

    def intersection(self, node: Intersection, q: Any) -> Counts:
        holders = [m for m in node.members if has_summaries(m)]
        if len(holders) > 1:
            raise SummaryMisuse("&", holders[1])
        tokens = functools.reduce(operator.mul, [self.tokens(m, q) for m in node.members])
        found: Counts = {}
        if holders:
            rest = [self.tokens(m, q) for m in node.members if m is not holders[0]]
            every = functools.reduce(self.xp.minimum, rest) if rest else self.xp.ones_like(tokens)
            found = self.restrict(self.counts(holders[0], q), every > 0)
        return {**found, TOKENS: tokens}

    def restrict(self, found: Counts, kept: Any) -> Counts:
        """Summaries of which every token is kept."""
        xp, out = self.xp, {}
        for pool, counts in found.items():
            if pool is TOKENS:
                continue
            chunks = [
                xp.all(kept[..., c * pool.stride : min(c * pool.stride + pool.size, self.n)], axis=-1)
                for c in range(pool.chunks(self.n))
            ]
            out[pool] = xp.where(xp.stack(chunks, axis=-1), counts, 0)
        return out

    def transform(self, node: Any, q: Any) -> Any:
        from patterndsl.patterns.transforms import Shift, Transpose

        xp, n = self.xp, self.n
        q = np.asarray(q) if xp is np else q
        inside = (q >= 0) & (q < n)
        if isinstance(node, Transpose):
            whole = xp.swapaxes(self.tokens(node.p, xp.arange(n)), -1, -2)
            return xp.where(inside[:, None], xp.take(whole, xp.clip(q, 0, n - 1), axis=-2), 0)
        if isinstance(node, Shift):
            counts, source = self.tokens(node.p, q), np.arange(n) - int(node.by)
            exists = (source >= 0) & (source < n)
            return xp.where(exists, xp.take(counts, np.clip(source, 0, n - 1), axis=-1), 0)
        size = int(node.size)
        whole = self.tokens(node.p, xp.arange(n)) > 0
        blocks = -(-n // size)
        pad = [(0, 0)] * (whole.ndim - 2) + [(0, blocks * size - n)] * 2
        cut = xp.pad(whole, pad).reshape(*whole.shape[:-2], blocks, size, blocks, size)
        kept = xp.any(cut, axis=(-3, -1)).astype(np.int32)
        rows = xp.take(kept, xp.clip(q // size, 0, blocks - 1), axis=-2)
        return xp.where(inside[:, None], xp.take(rows, np.arange(n) // size, axis=-1), 0)
