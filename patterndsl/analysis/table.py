"""A report as an aligned plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from patterndsl.analysis.report import AtLength, Between, Report

WIDTH = 100
UNKNOWN = "–"
Line = tuple[str, Callable[[AtLength], str]]


def report_text(report: Report) -> str:
    """The report: what holds at every length, a column for each length, notes."""
    head = [
        ("spec", report.spec),
        ("growth", f"{report.growth}: {report.reason}"),
        ("pairs kept", str(report.closed_form)),
        ("figures for", _setting(report)),
    ]
    blocks = ["\n".join(_wrapped(name, text) for name, text in head), _columns(report)]
    notes = list(report.notes)
    for at in report.lengths:
        prefix = f"n = {at.n}: " if len(report.lengths) > 1 else ""
        notes += [prefix + note for note in at.notes]
    if notes:
        blocks.append("\n".join(_wrapped("note", note) for note in notes))
    return "\n\n".join(blocks)


def _setting(report: Report) -> str:
    heads = f"{report.num_heads} head{'s' * (report.num_heads > 1)} of {report.head_dim}"
    together = ", all heads together" if report.num_heads > 1 else ""
    layer = f", layer {report.layer}" if report.layer else ""
    return f"{heads}{layer}, {report.itemsize} bytes a number{together}"


def _wrapped(name: str, text: str) -> str:
    label = f"{name}: "
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns(report: Report) -> str:
    levels = sorted({level for at in report.lengths for level in at.levels if level})
    lines: list[Line] = [
        ("n", lambda at: f"{at.n:,}"),
        ("pairs kept", lambda at: number(at.pairs)),
        ("density", lambda at: share(at.density)),
    ]
    if levels:
        lines += [(f"summaries, level {level}", _level(level)) for level in levels]
        lines += [("slots kept", lambda at: number(at.slots))]
        lines += [("slots / n^2", lambda at: share(at.slot_density))]
    if any(at.weight is None or at.weight != at.slots for at in report.lengths):
        lines.append(("slots, with counts", lambda at: UNKNOWN if at.weight is None else number(at.weight)))
    lines += [
        ("per query: fewest", lambda at: _or_unknown(at.per_query.min)),
        ("per query: mean", lambda at: number(at.per_query.mean)),
        ("per query: most", lambda at: _or_unknown(at.per_query.max)),
        ("queries without keys", _empty),
        ("pairs computed", lambda at: UNKNOWN if at.cost is None else number(at.cost.computed)),
        ("computed / kept", _waste),
        ("FLOPs forward", lambda at: UNKNOWN if at.cost is None else scaled(at.cost.flops.forward)),
        ("FLOPs backward", lambda at: UNKNOWN if at.cost is None else scaled(at.cost.flops.backward)),
        ("bytes forward", lambda at: UNKNOWN if at.cost is None else scaled(at.cost.bytes.forward, 1024)),
        ("bytes backward", lambda at: UNKNOWN if at.cost is None else scaled(at.cost.bytes.backward, 1024)),
        ("plan's tables", _tables),
    ]
    rows = [[name, *(cell(at) for at in report.lengths)] for name, cell in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _level(level: int) -> Callable[[AtLength], str]:
    return lambda at: number(at.levels.get(level, 0))


def _or_unknown(x: int | Between | None) -> str:
    return UNKNOWN if x is None else number(x)


def _empty(at: AtLength) -> str:
    if at.rows_without_keys is None:
        return UNKNOWN
    number, first = at.rows_without_keys
    return f"{number:,}" if first is None else f"{number:,} (first {first:,})"


def _waste(at: AtLength) -> str:
    return UNKNOWN if at.waste is None else number(at.waste)


def _tables(at: AtLength) -> str:
    return UNKNOWN if at.plan is None else scaled(at.plan.stats().table_bytes, 1024)


def number(x: float | Between) -> str:
    """With thousands separated; a range where it is only bounded."""
    if isinstance(x, Between):
        return f"{number(x.lower)} or more" if x.upper is None else f"{number(x.lower)} to {number(x.upper)}"
    return f"{x:,}" if isinstance(x, int) else f"{x:,.2f}"


def share(x: float | Between) -> str:
    """As a percentage of three digits."""
    if isinstance(x, Between):
        return f"{share(x.lower)} or more" if x.upper is None else f"{share(x.lower)} to {share(x.upper)}"
    return f"{100 * x:.3g}%"


def scaled(x: int, base: int = 1000) -> str:
    """With a unit: k, M, G … (Ki, Mi, Gi … of 1024)."""
    units = ["", *"kMGTPEZY"] if base == 1000 else ["B", *(f"{u}iB" for u in "KMGTPEZY")]
    value, power = float(x), 0
    while value >= base and power + 1 < len(units):
        value, power = value / base, power + 1
    return f"{value:.0f} {units[0]}".strip() if power == 0 else f"{value:.3g} {units[power]}"
