"""`analyze`: what a spec keeps and costs at given lengths, as a table and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from patterndsl.analysis.cost import Cost, plan_cost
from patterndsl.analysis.count import LARGEST, Counted, beyond, count
from patterndsl.analysis.growth import Growth, growth
from patterndsl.analysis.quadtree import Budget, Tally
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall, InputShape, PlanTooLarge
from patterndsl.ir import resolve
from patterndsl.ir.nodes import Mix, Module, Node
from patterndsl.ir.normal import has_summaries, walk
from patterndsl.lint import first_seen_twice, mixed_union
from patterndsl.spec import Spec, as_spec, check_inputs

if TYPE_CHECKING:
    from patterndsl.plan.plan import Plan

SMALL = 300
"""A length at which tokens seen twice are looked for."""


class Between(NamedTuple):
    """A number that is known to lie in ``lower`` … ``upper`` only (``upper`` None: not bounded)."""

    lower: float
    upper: float | None


class PerQuery(NamedTuple):
    """Slots kept by a query of a head: the fewest, on average, the most. None where not found."""

    min: int | None
    mean: float | Between
    max: int | None


class EmptyRows(NamedTuple):
    """How many queries, over all heads, keep no slot; the first of them."""

    number: int
    example: int | None


@dataclasses.dataclass(frozen=True)
class AtLength:
    """A spec at n keys and n queries, summed over its heads.

    ``pairs``: token pairs kept. ``slots``: with the summaries, which ``levels`` splits by level (0: tokens).
    ``weight``: slots times their counts, more than ``slots`` only under ``a + b``; None where it depends on
    data. ``density``: pairs among all n² pairs, ``slot_density``: slots divided by the same number.
    ``per_query`` and ``rows_without_keys`` count slots; the latter is None where it is not known. ``plan``,
    ``cost``: how it runs and what that takes; None where no plan can be made, which a note explains.
    """

    n: int
    pairs: int | Between
    slots: int | Between
    levels: Mapping[int, int | Between]
    weight: int | Between | None
    density: float | Between
    slot_density: float | Between
    per_query: PerQuery
    rows_without_keys: EmptyRows | None
    plan: Plan | None
    cost: Cost | None
    notes: tuple[str, ...]

    @property
    def waste(self) -> float | Between | None:
        """Pairs computed for each slot kept; bounded from below where the slots are bounded from above."""
        if self.cost is None or self.slots == 0:
            return None
        if isinstance(self.slots, Between):
            low, high = self.slots
            assert high
            return Between(self.cost.computed / high, self.cost.computed / low if low else None)
        return self.cost.computed / self.slots

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a number that is only bounded is ``{"lower": …, "upper": …}``."""
        data = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "plan"}
        data["waste"] = _plain(self.waste)
        data["plan"] = None if self.plan is None else self.plan.stats().to_dict()
        return data


@dataclasses.dataclass(frozen=True)
class Report:
    """What a spec keeps and costs. With one length its figures are attributes of the report; with several,
    ``report.at(n).pairs``. ``str()`` is a table."""

    spec: str
    growth: Growth
    reason: str
    num_heads: int
    head_dim: int
    itemsize: int
    layer: int
    lengths: tuple[AtLength, ...]
    notes: tuple[str, ...]

    def at(self, n: int) -> AtLength:
        """The figures at one of the lengths. Raises KeyError for another."""
        for length in self.lengths:
            if length.n == n:
                return length
        raise KeyError(f"analysed at {', '.join(str(x.n) for x in self.lengths)}, not at {n}")

    @property
    def _only(self) -> AtLength:
        if len(self.lengths) > 1:
            raise ValueError("several lengths were analysed: ask for one, as in `report.at(n).pairs`")
        return self.lengths[0]

    @property
    def pairs(self) -> int | Between:
        return self._only.pairs

    @property
    def slots(self) -> int | Between:
        return self._only.slots

    @property
    def density(self) -> float | Between:
        return self._only.density

    @property
    def slot_density(self) -> float | Between:
        return self._only.slot_density

    @property
    def per_query(self) -> PerQuery:
        return self._only.per_query

    @property
    def rows_without_keys(self) -> EmptyRows | None:
        return self._only.rows_without_keys

    @property
    def plan(self) -> Plan | None:
        return self._only.plan

    @property
    def cost(self) -> Cost | None:
        return self._only.cost

    @property
    def flops(self) -> Any:
        """(forward, backward), None without a plan."""
        return None if self.cost is None else self.cost.flops

    @property
    def bytes(self) -> Any:
        """(forward, backward), None without a plan."""
        return None if self.cost is None else self.cost.bytes

    def __str__(self) -> str:
        from patterndsl.analysis.table import report_text  # here, as a table is needed only when shown

        return report_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return {
            "spec": self.spec,
            "growth": {
                "class": str(self.growth),
                "measured": self.growth.measured,
                "reason": self.reason,
            },
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "itemsize": self.itemsize,
            "layer": self.layer,
            "lengths": [x.to_dict() for x in self.lengths],
            "notes": list(self.notes),
        }


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
    _check(given, layer, num_heads, head_dim, itemsize)
    lengths = list(dict.fromkeys(int(x) for x in given))
    values = _inputs(spec, inputs, lengths)
    return _Analysis(spec, params, layer, num_heads, head_dim, itemsize, values).report(lengths)


def _check(lengths: list[int], layer: int, num_heads: int | None, head_dim: int, itemsize: int) -> None:
    if not lengths:
        raise SpecError(BadCall(argument="n", reason="at least one length is needed"))
    named = [("n", x) for x in lengths] + [("head_dim", head_dim), ("itemsize", itemsize)]
    named += [] if num_heads is None else [("num_heads", num_heads)]
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
    values = check_inputs(spec.inputs, inputs, lengths[0])
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
        from patterndsl.api import compile, named_heads

        self.spec, self.inputs, self.layer = spec, inputs, layer
        self.head_dim, self.itemsize = head_dim, itemsize
        module = resolve.inline(resolve.set_params(spec.module, params))
        main = resolve.pick_layer(module.main, layer)
        self.module = Module(main, module.params, module.inputs, module.functions, module.spans)
        self.num_heads = named_heads(main) if num_heads is None else num_heads
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
        )

    def at(self, n: int) -> AtLength:
        from patterndsl.api import head_nodes

        try:
            heads = head_nodes(self.module, n, self.num_heads)
        except SpecError as error:
            if all(isinstance(d, PlanTooLarge) for d in error.diagnostics):
                return self.bounded(n, error)
            raise
        counts = [(len(h), count(node, n, n, 0, inputs=self.inputs, budget=Budget())) for h, node in heads]
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
            (*self.exactness(n, slots), *notes),
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

    def exactness(self, n: int, slots: Tally) -> list[str]:
        if slots.exact:
            return []
        if n > LARGEST:
            return [f"n = {n} is beyond what is counted exactly (2^28): bounds from the patterns themselves"]
        if self.module.inputs:
            return [
                "what is kept depends on the run-time inputs "
                f"({', '.join(self.module.inputs)}): the counts are bounds over all their values"
            ]
        return ["the predicate follows no pattern that can be counted at this length: bounds"]

    def notes(self) -> list[str]:
        found = []
        heads: dict[Node, int] = {}
        for head in range(self.num_heads):
            heads.setdefault(resolve.pick_head(self.module.main, head, self.num_heads), head)
        for tree, head in heads.items():
            if any(isinstance(p, Mix) for p in walk(tree)):
                found.append("branches of `mix` are counted one by one and added up")
            if has_summaries(tree) and not self.spec.inputs:
                found += self.seen_twice(tree, head)
        return list(dict.fromkeys(found))

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


def _sum(parts: Any) -> Tally:
    low = high = 0
    for times, part in parts:
        low, high = low + times * part.lower, high + times * part.upper
    return Tally(low, high, None)


def _number(t: Tally) -> int | Between:
    return t.lower if t.exact else Between(t.lower, t.upper)


def _share(t: Tally, whole: int) -> float | Between:
    return t.lower / whole if t.exact else Between(t.lower / whole, t.upper / whole)


def _levels(counts: Sequence[tuple[int, Counted]]) -> dict[int, int | Between]:
    found: dict[int, list[tuple[int, Tally]]] = {}
    for times, c in counts:
        for level, t in {0: c.pairs, **c.levels}.items():
            found.setdefault(level, []).append((times, t))
    return {level: _number(_sum(parts)) for level, parts in sorted(found.items())}


def _per_query(counts: Sequence[tuple[int, Counted]], slots: Tally, queries: int) -> PerQuery:
    rows = [c.slots.rows for _, c in counts]
    mean = _share(slots, queries)
    if any(r is None for r in rows):
        return PerQuery(None, mean, None)
    return PerQuery(
        min(int(r.min()) for r in rows if r is not None),
        mean,
        max(int(r.max()) for r in rows if r is not None),
    )


def _empty(counts: Sequence[tuple[int, Counted]]) -> EmptyRows | None:
    total, first = 0, None
    for times, c in counts:
        rows = c.slots.rows
        if rows is None:
            return None
        empty = np.flatnonzero(rows == 0)
        total += times * len(empty)
        if len(empty):
            first = int(empty[0]) if first is None else min(first, int(empty[0]))
    return EmptyRows(total, first)


def _plain(x: Any) -> Any:
    if dataclasses.is_dataclass(x):
        return {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, tuple) and hasattr(x, "_asdict"):
        return {k: _plain(v) for k, v in x._asdict().items()}
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    return [_plain(v) for v in x] if isinstance(x, tuple) else x
