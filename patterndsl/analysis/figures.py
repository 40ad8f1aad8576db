"""`analyze`: what a spec keeps and costs at given lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from patterndsl.analysis.closed_form import closed_form
from patterndsl.analysis.cost import plan_cost
from patterndsl.analysis.count import LARGEST, Counted, beyond, count
from patterndsl.analysis.growth import growth
from patterndsl.analysis.quadtree import Tally
from patterndsl.analysis.report import AtLength, Between, EmptyRows, PerQuery, Report
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall, InputShape, PlanTooLarge
from patterndsl.ir import resolve
from patterndsl.ir.nodes import Heads, Layers, Mix, Module, Node
from patterndsl.ir.normal import has_summaries, walk
from patterndsl.lint import first_seen_twice, mixed_union
from patterndsl.spec import Spec, as_spec, check_inputs, of_kind

SMALL = 300
"""A length at which tokens seen twice are looked for."""


def analyze(
    spec: Spec | str,
    n: int | Sequence[int] = 65536,
    params: Mapping[str, int] | None = None,
    *,
    layer: int = 0,
    num_heads: int | None = None,
    head_dim: int = 64,
    itemsize: int = 2,
    inputs: Mapping[str, Any] | None = None,
) -> Report:
    """What a spec keeps at n keys and n queries, how that grows, and what running it costs.

    ``n``: a length, or several. ``num_heads``: heads over which all figures are summed, as many as the spec
    names (1 where it names none) unless given. ``head_dim``, ``itemsize``: numbers in a head's query, key or
    value, and bytes of one, for FLOPs and bytes. ``inputs``: the run-time inputs, [n] each, with which counts
    are exact at one small n; without them they are bounds. Counts are exact up to 2^28 tokens unless the
    predicate follows no pattern; beyond, bounds. Raises `SpecError`.
    """
    spec = as_spec(spec)
    given = list(n) if isinstance(n, Sequence) else [n]
    _check(given, layer, head_dim, itemsize)
    lengths = list(dict.fromkeys(int(x) for x in given))
    values = _inputs(spec, inputs, lengths)
    return _Analysis(spec, params, layer, num_heads, head_dim, itemsize, values).report(lengths)


def _check(lengths: list[int], layer: int, head_dim: int, itemsize: int) -> None:
    if not lengths:
        raise SpecError(BadCall(argument="n", reason="at least one length is needed"))
    named = [("n", x) for x in lengths] + [("head_dim", head_dim), ("itemsize", itemsize)]
    for name, value in named:
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
            raise SpecError(BadCall(argument=name, reason=f"a positive number is needed, not {value!r}"))
    if layer < 0:
        raise SpecError(BadCall(argument="layer", reason=f"layers count from 0, not {layer}"))


def _inputs(spec: Spec, inputs: Mapping[str, Any] | None, lengths: Sequence[int]) -> Mapping[str, Any] | None:
    if inputs is None:
        return None
    if len(lengths) > 1:
        raise SpecError(BadCall(argument="inputs", reason="they have one length, so give one n"))
    kinds = spec.module.inputs
    values = of_kind("token", kinds, check_inputs(kinds, inputs, lengths[0]))
    for name, value in values.items():
        if value.ndim != 1:
            raise SpecError(InputShape(name=name, shape=tuple(value.shape), expected=f"[{lengths[0]}]"))
    return values


class _Analysis:
    def __init__(
        self,
        spec: Spec,
        params: Mapping[str, int] | None,
        layer: int,
        num_heads: int | None,
        head_dim: int,
        itemsize: int,
        inputs: Mapping[str, Any] | None,
    ) -> None:
        from patterndsl.api import check_heads, compile, named_heads

        self.spec, self.inputs, self.layer = spec, inputs, layer
        self.head_dim, self.itemsize = head_dim, itemsize
        module = resolve.inline(resolve.set_params(spec.module, params))
        self.by_layer = any(isinstance(p, Layers) for p in walk(module.main))
        main = resolve.pick_layer(module.main, layer)
        self.module = Module(main, module.params, module.inputs, module.functions, module.spans)
        self.num_heads = named_heads(main) if num_heads is None else num_heads
        check_heads(self.num_heads)
        self.attention = compile(spec, params=params, layer=layer)

    def report(self, lengths: Sequence[int]) -> Report:
        at = tuple(self.at(n) for n in lengths)
        found, why = growth(self.module, self.num_heads)
        return Report(
            str(self.spec),
            found,
            why,
            self.num_heads,
            self.head_dim,
            self.itemsize,
            self.layer,
            at,
            tuple(self.notes()),
            closed_form(self.module, self.num_heads),
        )

    def at(self, n: int) -> AtLength:
        from patterndsl.api import head_nodes

        try:
            heads = head_nodes(self.module, n, self.num_heads)
        except SpecError as error:
            if all(isinstance(d, PlanTooLarge) for d in error.diagnostics):
                return self.bounded(n, error)
            raise
        counts = [(len(h), count(node, n, n, 0, inputs=self.inputs)) for h, node in heads]
        pairs = _sum((times, c.pairs) for times, c in counts)
        slots = _sum((times, c.slots) for times, c in counts)
        weights = [(times, c.weight) for times, c in counts]
        weight = None if any(w is None for _, w in weights) else _sum((t, w) for t, w in weights if w)
        dense = self.num_heads * n * n
        notes: list[str] = []
        plan, cost = None, None
        try:
            plan, cost = plan_cost(self.attention, heads, n, self.head_dim, self.itemsize)
        except SpecError as error:
            notes.append(f"no plan: {'; '.join(d.message() for d in error.diagnostics)}")
        else:
            if plan is None:
                how = "are not predicted" if cost is None else "are predicted from tiles of 128 × 128"
                notes.append(f"the plan would be too large to be made here: its costs {how}")
        return AtLength(
            n,
            _number(pairs),
            _number(slots),
            _levels(counts),
            None if weight is None else _number(weight),
            _share(pairs, dense),
            _share(slots, dense),
            _per_query(counts, slots, self.num_heads * n),
            _empty(counts),
            plan,
            cost,
            (*self.exactness(n, slots, all(c.slots.rows is not None for _, c in counts)), *notes),
        )

    def bounded(self, n: int, why: SpecError) -> AtLength:
        """Where the pattern cannot even be written out at n: what its own bounds say."""
        trees = [resolve.pick_head(self.module.main, h, self.num_heads) for h in range(self.num_heads)]
        slots = _sum((1, beyond(tree, n, n).slots) for tree in trees)
        share = _share(slots, self.num_heads * n * n)
        return AtLength(
            n=n,
            pairs=_number(slots),
            slots=_number(slots),
            levels={},
            weight=None,
            density=share,
            slot_density=share,
            per_query=PerQuery(None, _share(slots, self.num_heads * n), None),
            rows_without_keys=None,
            plan=None,
            cost=None,
            notes=tuple(f"bounds only: {d.message()}" for d in why.diagnostics),
        )

    def exactness(self, n: int, slots: Tally, rows: bool) -> list[str]:
        if slots.exact:
            return [] if rows else ["counts for each query would take too much memory at this length"]
        if n > LARGEST:
            return [f"n = {n} is beyond what is counted exactly (2^28): bounds from the patterns themselves"]
        if self.module.main.holds_choice:
            return ["what is kept is chosen from q and k: the counts are bounds over all their values"]
        if self.module.inputs:
            return [
                "what is kept depends on the run-time inputs "
                f"({', '.join(self.module.inputs)}): the counts are bounds over all their values"
            ]
        return ["the predicate follows no pattern that can be counted at this length: bounds"]

    def notes(self) -> list[str]:
        found = self.left_out()
        heads: dict[Node, int] = {}
        for head in range(self.num_heads):
            heads.setdefault(resolve.pick_head(self.module.main, head, self.num_heads), head)
        for tree, head in heads.items():
            if any(isinstance(p, Mix) for p in walk(tree)):
                found.append("branches of `mix` are counted one by one and added up")
            if has_summaries(tree) and not self.spec.inputs:
                found += self.seen_twice(tree, head)
        return list(dict.fromkeys(found))

    def left_out(self) -> list[str]:
        """Which layers and heads of the spec the figures do not count, where that may not be expected."""
        found = []
        if self.by_layer and self.layer == 0:
            found.append("these are the figures of layer 0")
        cases = [p for p in walk(self.module.main) if isinstance(p, Heads)]
        rest = any(p.otherwise and all(p.covers(h) for h in range(self.num_heads)) for p in cases)
        if rest:
            found.append(f"none of the {self.num_heads} heads counted is one of the case `_`")
        return found

    def seen_twice(self, tree: Node, head: int) -> list[str]:
        spec = Spec(Module(tree))
        try:
            twice = first_seen_twice(spec.slots(SMALL), SMALL)
        except SpecError:
            return []
        if twice is None:
            return []
        _, instead = mixed_union(tree)
        head_named = f"in head {head}, " if self.num_heads > 1 else ""
        advice = f"; `{instead}` sees each token once" if instead else ""
        return [
            f"{head_named}query {twice[0]} sees token {twice[1]} both by itself and under a summary{advice}"
        ]


def _sum(parts: Iterable[tuple[int, Tally]]) -> Tally:
    low = high = 0
    for times, part in parts:
        low, high = low + times * part.lower, high + times * part.upper
    return Tally(low, high, None)


def _number(t: Tally) -> int | Between:
    return _between(t.lower, t.upper)


def _between(low: int, high: int) -> int | Between:
    return low if low == high else Between(low, high)


def _share(t: Tally, whole: int) -> float | Between:
    return t.lower / whole if t.exact else Between(t.lower / whole, t.upper / whole)


def _levels(counts: Sequence[tuple[int, Counted]]) -> dict[int, int | Between]:
    found: dict[int, list[tuple[int, Tally]]] = {}
    for times, c in counts:
        for level, t in {0: c.pairs, **c.levels}.items():
            found.setdefault(level, []).append((times, t))
    return {level: _number(_sum(parts)) for level, parts in sorted(found.items())}


def _per_query(counts: Sequence[tuple[int, Counted]], slots: Tally, queries: int) -> PerQuery:
    mean = _share(slots, queries)
    bounds = [c.slots.row_bounds for _, c in counts]
    known = [b for b in bounds if b is not None]
    if len(known) < len(bounds):
        return PerQuery(None, mean, None)
    fewest = [min(int(b[i].min()) for b in known) for i in (0, 1)]
    most = [max(int(b[i].max()) for b in known) for i in (0, 1)]
    return PerQuery(_between(*fewest), mean, _between(*most))


def _empty(counts: Sequence[tuple[int, Counted]]) -> EmptyRows | None:
    """Queries that keep nothing, where data has no say in it."""
    total, first = 0, None
    for times, c in counts:
        bounds = c.slots.row_bounds
        if bounds is None:
            return None
        empty = np.flatnonzero(bounds[1] == 0)
        if np.count_nonzero(bounds[0] == 0) > len(empty):
            return None
        total += times * len(empty)
        if len(empty):
            first = int(empty[0]) if first is None else min(first, int(empty[0]))
    return EmptyRows(total, first)
