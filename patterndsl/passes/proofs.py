"""Proofs for rewrites: asked of arithmetic first, refuted by random points next, and proved by exact integer
sets last, so that isl is imported only where the answer is very likely yes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from patterndsl.ir import sets
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import FALSE, Expr, bound
from patterndsl.ir.nodes import Call, Cases, Mix, Node
from patterndsl.ir.normal import walk
from patterndsl.passes.windows import window, within

POINTS = 2048
LONGEST = 2**16
STEPS = 200_000  # of isl for one proof: a quarter of a second
AT_LEAST, UNDECIDED = 16, 1_500
"""What a proof weighs besides its operations, and what one without an outcome weighs more."""
Kept = npt.NDArray[np.bool_]


@dataclasses.dataclass
class Prover:
    """Facts about token pairs that hold at every n, for ``queries`` anywhere (as passes need them) or at
    0 … n − 1. ``False`` means not proved.

    ``proofs`` and ``looks`` bound how much is tried, in operations of the predicates that are compared, or
    evaluated, so that no spec takes long.
    """

    queries: Literal["anywhere", "present"] = "anywhere"
    proofs: int = 6_000
    looks: int = 16_000
    _keeps: dict[Node, Expr | None] = dataclasses.field(default_factory=dict)
    _seen: dict[Expr, Kept | None] = dataclasses.field(default_factory=dict)

    def subset(self, a: Node, b: Node) -> bool:
        """Every token pair that ``a`` keeps is kept by ``b``."""
        exact = window(b)
        if a is b or (exact is not None and within(a) <= exact):
            return True
        if exact is not None and window(a) is not None:
            return False
        inner, outer = self.keeps(a), self.keeps(b)
        if inner is None or outer is None:
            return False
        one, other = self._look(inner), self._look(outer)
        if one is None or other is None or np.any(one & ~other):
            return False
        return self._proved(inner & ~outer)

    def disjoint(self, a: Node, b: Node) -> bool:
        """No token pair is kept by both."""
        one, other = self.keeps(a), self.keeps(b)
        if one is None or other is None:
            return False
        here, there = self._look(one), self._look(other)
        return (
            here is not None and there is not None and not np.any(here & there) and self._proved(one & other)
        )

    def empty(self, p: Node) -> bool:
        """No token pair is kept."""
        keep = None if window(p) is not None else self.keeps(p)
        if keep is None:
            return False
        look = self._look(keep)
        return look is not None and not np.any(look) and self._proved(keep)

    def keeps(self, p: Node) -> Expr | None:
        """The predicate of the token pairs kept, n symbolic; None where n or more must be known first."""
        if p not in self._keeps:
            self._keeps[p] = _keeps(p)
        return self._keeps[p]

    def _proved(self, e: Expr) -> bool:
        """No pair satisfies the predicate."""
        if e is FALSE:
            return True
        if self.proofs <= 0:
            return False
        self.proofs -= len(e.walk()) + AT_LEAST
        try:
            return sets.is_empty(e, sets.Domain(self.queries), opaque=True, budget=STEPS)
        except sets.NotDecided:
            self.proofs -= UNDECIDED
            return False

    def _look(self, e: Expr) -> Kept | None:
        """At which of the random points the predicate holds; None where it is not looked at."""
        if e not in self._seen:
            self.looks -= len(e.walk())
            self._seen[e] = _kept(e, self.queries) if self.looks >= 0 else None
        return self._seen[e]


def _keeps(p: Node) -> Expr | None:
    if any(isinstance(x, (Call, Cases, Mix)) for x in walk(p)):
        return None
    try:
        return sets.token_set(p)
    except sets.NotDecided:
        return None


def _kept(e: Expr, queries: str) -> Kept:
    """Where the predicate holds among random points: nowhere, if it takes too long to say or has no value."""
    points = random_points()
    quantified = [bound(x)[1] for x in e.walk() if x.op in ("forall", "exists")]
    present = (points["q"] >= 0) & (points["q"] < points["n"]) if queries == "present" else True
    env = {name: points.get(name, points["other"]) for name in e.names()}
    if math.prod(quantified) > 256:
        return np.zeros(POINTS, np.bool_)
    try:
        with np.errstate(all="ignore"):
            data: dict[Any, Any] = {**dict.fromkeys(e.inputs(), points["labels"]), **_any_facts(e)}
            held = evaluate(e, env, data)
    except KeyError:  # an operation on real numbers, which only numbers over n have
        return np.zeros(POINTS, np.bool_)
    return np.broadcast_to(held, POINTS) & present


def _any_facts(e: Expr) -> dict[Any, Any]:
    """Values for the facts that a predicate reads: any, as nothing is known of them."""
    rng = np.random.default_rng(0)
    axes = {x.value: len(x.args) for x in e.walk() if x.op == "fact"}
    return {fact: (rng.integers(-1, 8, (256,) * count), 0) for fact, count in axes.items()}


@functools.cache
def random_points() -> dict[str, npt.NDArray[np.int64]]:
    """Points (n, q, k) near the ends, near the diagonal, anywhere; labels for inputs; values for params."""
    rng = np.random.default_rng(0)

    def scattered() -> npt.NDArray[np.int64]:
        return np.exp(rng.uniform(0, np.log(LONGEST), POINTS)).astype(np.int64)

    n, kind = scattered(), rng.integers(0, 5, POINTS)
    k = (rng.random(POINTS) * n).astype(np.int64)
    k = np.where(kind == 0, np.minimum(k % 8, n - 1), k)
    far = scattered() * rng.choice([-1, 1], POINTS)
    q = np.select(
        [kind == 1, kind == 2, kind == 3],
        [k + far % 5 - 2, k + far, far % 8 - 2],
        (rng.random(POINTS) * n).astype(np.int64),
    )
    labels = np.repeat(rng.integers(-4, 12, LONGEST // 4), 4)
    return {"n": n, "q": q, "k": k, "other": rng.integers(1, 256, POINTS), "labels": labels}
