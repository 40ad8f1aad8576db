"""The report of `analyze`: figures at each length, growth, notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from patterndsl.analysis.closed_form import ClosedForm
from patterndsl.analysis.cost import Cost, Passes
from patterndsl.analysis.growth import Growth

if TYPE_CHECKING:
    from patterndsl.plan.plan import Plan


class Between(NamedTuple):
    """A number that is known to lie in ``lower`` … ``upper`` only (``upper`` None: not bounded)."""

    lower: float
    upper: float | None


class PerQuery(NamedTuple):
    """Slots kept by a query of a head: the fewest, on average, the most. None where not found."""

    min: int | Between | None
    mean: float | Between
    max: int | Between | None


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
    ``report.at(n).pairs``. ``closed_form``: the counts as formulas over n. ``str()`` is a table."""

    spec: str
    growth: Growth
    reason: str
    num_heads: int
    head_dim: int
    itemsize: int
    layer: int
    lengths: tuple[AtLength, ...]
    notes: tuple[str, ...]
    closed_form: ClosedForm

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
    def flops(self) -> Passes | None:
        """(forward, backward), None without a plan."""
        return None if self.cost is None else self.cost.flops

    @property
    def bytes(self) -> Passes | None:
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
            "closed_form": self.closed_form.to_dict(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "itemsize": self.itemsize,
            "layer": self.layer,
            "lengths": [x.to_dict() for x in self.lengths],
            "notes": list(self.notes),
        }


def _plain(x: Any) -> Any:
    if dataclasses.is_dataclass(x):
        return {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, tuple) and hasattr(x, "_asdict"):
        return {k: _plain(v) for k, v in x._asdict().items()}
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    return [_plain(v) for v in x] if isinstance(x, tuple) else x
