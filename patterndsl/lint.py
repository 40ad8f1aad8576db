"""Warnings about specs that are well formed but hardly meant: found by looking at small n."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from patterndsl.diagnostics import (
    ClustersSeeFuture,
    Diagnostic,
    Diagnostics,
    KeepsNothing,
    RowsWithoutKeys,
    SelectWithoutAmong,
    SpecError,
    TokenSeenTwice,
)
from patterndsl.ir import resolve
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import (
    Cases,
    Difference,
    Heads,
    Intersection,
    Layers,
    Mix,
    Module,
    Node,
    Pattern,
    Union,
)
from patterndsl.ir.normal import has_summaries, walk
from patterndsl.passes.windows import within
from patterndsl.patterns.cluster import Cluster
from patterndsl.patterns.hierarchical import Hierarchical
from patterndsl.patterns.local import Local
from patterndsl.patterns.select import Select
from patterndsl.patterns.transforms import Blocks
from patterndsl.spec import Slots, Spec

SMALL = (1, 2, 7, 64)
LOOKED_AT = 100
"""Operators of a spec that are looked at for patterns that keep nothing."""
LARGER = 1024
"""Rows that are empty at a small n are reported only if some are here too: `shift(p, 100)` needs room."""


def lint(
    spec: Spec, lengths: Sequence[int] = (), params: Mapping[str, int] | None = None
) -> tuple[Diagnostic, ...]:
    """Warnings and notes, for every layer and head that the spec tells apart.

    ``lengths``: further n to look at; the spec must be valid there. Specs with run-time inputs, or with
    patterns chosen from q and k, are not judged by what they keep, since that is up to the data. Raises
    SpecError.
    """
    module = resolve.inline(resolve.set_params(spec.module, params))
    found = Diagnostics()
    for p in walk(module.main):
        if isinstance(p, Pattern):  # once more, as params have other values now
            resolve.check_arguments(p, None, module.spans.get(p))
    empty = always_empty(module)
    found.extend(empty)
    found.extend(compete_with_future(module))
    proved = {d.pattern for d in empty}
    for head, layer in variants(module.main):
        for n in lengths:
            spec.bind(n, params=params, head=head, layer=layer)
        if not spec.inputs and not module.main.holds_choice:
            small = [n for n in lengths if n <= LARGER]
            more = _lint_one(spec, module, params, head, layer, small)
            found.extend(d for d in more if not (isinstance(d, KeepsNothing) and d.pattern in proved))
    return tuple(found)


def always_empty(module: Module) -> tuple[KeepsNothing, ...]:
    """A warning for each pattern, of those written, that keeps nothing at any n, proved by exact integer
    sets; these are loaded only where one keeps nothing at a small n."""
    from patterndsl.passes.empty import find_empty

    operators = [p for p in walk(module.main) if not isinstance(p, (Pattern, Cases))]
    if any(_looks_empty(p, module) for p in operators[:LOOKED_AT]):
        return find_empty(module)
    return ()


def compete_with_future(module: Module) -> Iterator[SelectWithoutAmong | ClustersSeeFuture]:
    """A warning for each `select` under `causal` whose blocks are chosen among future ones too, and a note
    for each `cluster`, which always chooses so."""
    seen: dict[tuple[Node, bool], None] = {}
    pending = [(module.main, False)]
    while pending:
        p, causal = pending.pop()
        if (p, causal) in seen:
            continue
        seen[p, causal] = None
        if isinstance(p, Select):
            if causal and not _ahead_at_most(p.among, (p.block.number or 1) - 1):
                yield SelectWithoutAmong(span=module.spans.get(p))
            continue
        if isinstance(p, Cluster) and causal:
            yield ClustersSeeFuture(span=module.spans.get(p))
        pending.extend((child, causal or _ahead_at_most(p, 0)) for child in p.children)


def _ahead_at_most(p: Node, most: int) -> bool:
    """Whether no query sees a key further ahead than that, as far as it is plain to see: no block of more
    keys than that lies in the future and is then kept as a whole."""
    if isinstance(p, Difference):
        return _ahead_at_most(p.left, most)
    if isinstance(p, Union):
        return all(_ahead_at_most(m, most) for m in p.members)
    if isinstance(p, Cases):
        return all(_ahead_at_most(child, most) for child in p.children)
    if isinstance(p, Blocks):  # a pair moves by less than a block
        size = p.size.number
        return size is not None and size - 1 <= most and _ahead_at_most(p.p, most - size + 1)
    right = within(p).right
    if right is not None and right <= most:
        return True
    return isinstance(p, Intersection) and any(_ahead_at_most(m, most) for m in p.members)


def _looks_empty(p: Node, module: Module) -> bool:
    """Keeps nothing at a small n, for the first head of the first layer."""
    if p.holds_choice or any(isinstance(x, Mix) for x in walk(p)):
        return False
    n = SMALL[-1]
    try:
        node = resolve.at_length(resolve.pick_head(resolve.pick_layer(p, 0), 0, 1), n)
    except SpecError:
        return False
    inputs = {name: np.zeros(n, np.int32) for name in module.inputs}
    return not any(counts.any() for counts in dense(node, np.arange(n), n, inputs).values())


def variants(tree: Node) -> Iterator[tuple[int, int]]:
    """A (head, layer) for each case of `heads` and `layers`."""
    for layer in _indices([p for p in walk(tree) if isinstance(p, Layers)]):
        try:
            picked = resolve.pick_layer(tree, layer)
        except SpecError:  # another block names fewer layers
            continue
        for head in _indices([p for p in walk(picked) if isinstance(p, Heads)]):
            try:
                resolve.pick_head(picked, head, None)
            except SpecError:  # a block that names all its heads has no other
                continue
            yield head, layer


def _indices(blocks: Sequence[Cases]) -> list[int]:
    """The first index of each case, and the first that only the rest covers."""
    found: set[int] = set()
    for block in blocks:
        found.update(r.start for r in block.ranges)
        ends = [r.stop if r.stop is not None else r.start + 1 for r in block.ranges]
        beyond = range(max(ends, default=0) + 2)
        found.update([i for i in beyond if not any(i in r for r in block.ranges)][:1])
    return sorted(found or {0})


def _lint_one(
    spec: Spec,
    module: Module,
    params: Mapping[str, int] | None,
    head: int,
    layer: int,
    lengths: Sequence[int],
) -> Iterator[Diagnostic]:
    def at(n: int) -> Slots | None:
        try:
            return spec.slots(n, params=params, head=head, layer=layer)
        except (
            SpecError
        ):  # a grid of another size, a token beyond n: what is wrong at one n is right at another
            return None

    seen = {n: slots for n in sorted({*SMALL, *lengths}) if (slots := at(n)) is not None}
    if not seen or any(_empty_rows(slots).size for slots in seen.values()):
        slots = at(LARGER)
        if slots is not None:
            seen[LARGER] = slots
    if not seen:
        return
    tree = resolve.pick_head(resolve.pick_layer(module.main, layer), head, None)
    n, slots = max(seen.items())
    rows = _empty_rows(slots)
    if rows.size == n:
        yield KeepsNothing(pattern=str(tree), n=n, span=module.spans.get(tree))
    elif rows.size:
        yield RowsWithoutKeys(query=int(rows[0]), n=n, count=len(rows), span=module.spans.get(tree))
    twice = first_seen_twice(slots, n)
    if twice is not None:
        union, instead = mixed_union(tree)
        yield TokenSeenTwice(query=twice[0], token=twice[1], instead=instead, span=module.spans.get(union))


def _empty_rows(slots: Slots) -> npt.NDArray[np.intp]:
    return np.flatnonzero(~slots.counts.any(axis=1))


def first_seen_twice(slots: Slots, n: int) -> tuple[int, int] | None:
    """The first query and token, if any, that meet both directly and under a summary."""
    summaries = slots.level > 0
    if not summaries.any():
        return None
    kept = (slots.counts[:, summaries] > 0).astype(np.int32)
    edges = np.zeros((n + 1, len(kept)), np.int32)
    np.add.at(edges, slots.start[summaries], kept.T)
    np.subtract.at(edges, slots.stop[summaries], kept.T)
    under = np.cumsum(edges, axis=0)[:n].T > 0
    pairs = np.argwhere(under & (slots.counts[:, ~summaries] > 0))
    return (int(pairs[0][0]), int(pairs[0][1])) if len(pairs) else None


def mixed_union(tree: Node) -> tuple[Node, str]:
    """The union in which tokens meet summaries; and of `local(w) | hierarchical(…)` the hierarchy whose own
    near field covers the window, as text (empty where there is none)."""
    unions = [p for p in walk(tree) if isinstance(p, Union) and has_summaries(p)]
    for p in unions:
        windows = [m.w for m in p.members if isinstance(m, Local) and m.w is not None]
        for m in p.members:
            if windows and isinstance(m, Hierarchical) and m.leaf is None and m.window.number != 0:
                return p, str(dataclasses.replace(m, leaf=windows[0]))
    return unions[0] if unions else tree, ""
