"""Whether two specs are the same pattern: for every n where that can be proved, else as far as was looked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.names import UnknownParam
from patterndsl.ir import resolve, sets
from patterndsl.ir.dense import dense
from patterndsl.ir.expr import Expr, all_of
from patterndsl.ir.nodes import Cases, Heads, Layers, Mix, Module, Node, Pattern, Pool, Where
from patterndsl.ir.normal import NOTHING, Term, lift_mix, walk
from patterndsl.passes.canonicalize import Canonicalize
from patterndsl.passes.fold import Fold
from patterndsl.spec import Spec, as_spec

LIMIT = 64
SEEDS = 3
HEADS = 8
"""Heads compared where a predicate reads `h`."""
MAX_GRID = 1024
PROBES = (96, 128, 192, 256)
"""Longer n that are tried where nothing is proved."""
MAX_CASES = 512
LONGEST = 90
"""Characters of a spec that are shown."""
_ALONE = "has a meaning"


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where two specs differ first: the smallest n, then the first query, then the first key (a token before
    a summary). ``start`` … ``stop`` − 1 are the tokens of the slot, ``level`` 0 for a token; ``counts`` how
    often each spec counts it. ``inputs`` are the run-time inputs at which they differ."""

    n: int
    q: int
    level: int
    start: int
    stop: int
    counts: tuple[int, int]
    branch: int = 0
    inputs: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def k(self) -> int:
        """The key; of a summary its first token."""
        return self.start

    def __str__(self) -> str:
        slot = f"key {self.start}"
        if self.level:
            last = f" to {self.stop - 1}" if self.stop > self.start + 1 else ""
            slot = f"the summary of {'keys' if last else 'key'} {self.start}{last}"
        a, b = self.counts
        only = "A" if a > b else "B"
        how = f"only in {only}" if {a, b} == {0, 1} else f"{_times(a)} in A, {_times(b)} in B"
        given = "".join(f", with {name} = {list(values)}" for name, values in self.inputs.items())
        branch = f" (branch {self.branch} of the mixture)" if self.branch else ""
        return f"at n = {self.n}{given}, query {self.q} sees {slot} {how}{branch}"


def _times(count: int) -> str:
    return ("never", "once", "twice")[count] if count < 3 else f"{count} times"


@dataclasses.dataclass(frozen=True)
class DiffResult:
    """``outcome``: "equal" for every n, "different" (``difference`` says where, in which ``head`` and
    ``layer``), or "undecided": no difference at the n up to ``checked`` at which both have a meaning (0:
    there is none; None: at no n, but not for every head), and no proof beyond, for the ``reason``. ``notes``
    are further remarks; ``specs`` what A and B are: the file, or the expression."""

    outcome: Literal["equal", "different", "undecided"]
    difference: Difference | None = None
    head: int | None = None
    layer: int | None = None
    checked: int | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    specs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        raise TypeError('a comparison may be undecided: look at `outcome`, for instance `== "equal"`')

    def __str__(self) -> str:
        place = "".join(
            f", {name} {i}" for name, i in (("layer", self.layer), ("head", self.head)) if i is not None
        )
        if self.outcome == "equal":
            first = "the same for every n"
        elif self.difference is not None:
            first = f"different{place}: {self.difference}"
        elif self.outcome == "different":
            first = f"different{place}: {self.reason}"
        elif self.checked == 0:
            first = f"not compared: {self.reason}"
        else:
            reach = "found" if self.checked is None else f"up to n = {self.checked}"
            first = f"no difference {reach}; not proved in general, because {self.reason}"
        told = self.difference is not None or any(_ALONE in note for note in self.notes)
        which = [f"  {name}: {text}" for name, text in zip("AB", self.specs if told else (), strict=False)]
        return "\n".join([first, *which, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        found = dataclasses.asdict(self)
        if self.difference is not None:
            found["difference"]["k"] = self.difference.k
        return found


def diff(
    a: Spec | str, b: Spec | str, *, params: Mapping[str, int] | None = None, limit: int = LIMIT
) -> DiffResult:
    """Compare two specs, n_q = n. ``params`` go to the spec that declares them; ``limit`` is the n up to
    which masks are compared one by one. Raises SpecError where a spec is wrong at every n."""
    specs = (as_spec(a), as_spec(b))
    trees = [_tree(s, _declared(s, params, specs)) for s in specs]
    texts = tuple(str(s) if s.name.startswith("<") else s.name for s in specs)
    texts = tuple(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in texts)
    results: list[DiffResult] = []
    for layer, head, pair in _variants(trees[0], trees[1]):
        found = _compare(pair, specs, limit)
        if found.outcome == "different":
            return dataclasses.replace(found, head=head, layer=layer, specs=texts)
        results.append(found)
    results.append(_all_heads(trees[0], trees[1]))
    notes = tuple(dict.fromkeys(note for r in results for note in r.notes))
    undecided = [r for r in results if r.outcome == "undecided"]
    if not undecided:
        return DiffResult("equal", notes=notes, specs=texts)
    checked = min((r.checked for r in results if r.checked is not None), default=None)
    return dataclasses.replace(undecided[0], checked=checked, notes=notes, specs=texts)


def _declared(spec: Spec, params: Mapping[str, int] | None, both: tuple[Spec, Spec]) -> dict[str, int]:
    given = dict(params or {})
    known = {name for s in both for name in s.module.params}
    for name in given:
        if name not in known:
            raise SpecError(UnknownParam(name=name, candidates=tuple(sorted(known))))
    return {name: value for name, value in given.items() if name in spec.module.params}


def _tree(spec: Spec, params: Mapping[str, int]) -> Node:
    return resolve.inline(resolve.set_params(spec.module, params)).main


# -- heads and layers ------------------------------------------------------------------------------------


def _variants(a: Node, b: Node) -> Iterator[tuple[int | None, int | None, tuple[Node, Node]]]:
    """Each pair of trees that some layer and head compare, with the first layer and head that do."""
    seen = set[tuple[Node, Node]]()
    for layer in _indices(Layers, a, b):
        left, right = _of_layer(a, layer), _of_layer(b, layer)
        if left is None or right is None:
            continue
        for head in _indices(Heads, left, right):
            one, other = _of_head(left, head), _of_head(right, head)
            if one is not None and other is not None and (one, other) not in seen:
                seen.add((one, other))
                yield layer, head, (one, other)


def _of_layer(p: Node, layer: int | None) -> Node | None:
    """The tree of a layer, None where its cases name no such."""
    try:
        return p if layer is None else resolve.pick_layer(p, layer)
    except SpecError:
        return None


def _of_head(p: Node, head: int | None) -> Node | None:
    try:
        return p if head is None else resolve.pick_head(p, head, HEADS if _reads(p, "num_heads") else None)
    except SpecError:
        return None


def _all_heads(a: Node, b: Node) -> DiffResult:
    """What is known of heads beyond those compared one by one, where predicates read `h`."""
    if a is b or not any(_reads(p, name) for p in (a, b) for name in ("h", "num_heads")):
        return DiffResult("equal")
    for layer in _indices(Layers, a, b):
        left, right = _of_layer(a, layer), _of_layer(b, layer)
        if left is None or right is None:
            continue
        cases = any(isinstance(x, (Cases, Mix)) for p in (left, right) for x in walk(p))
        if cases or _proof((left, right)).outcome != "equal":
            reason = f"it reads `h`, and heads 0 to {HEADS - 1} were compared"
            return DiffResult("undecided", reason=reason)
    return DiffResult("equal")


def _indices(kind: type[Heads] | type[Layers], *trees: Node) -> list[int | None]:
    """Enough heads or layers to meet every combination of cases; None alone where there are no cases."""
    cases = [p for tree in trees for p in walk(tree) if isinstance(p, kind)]
    most = 0
    if cases:
        ranges = [r for p in cases for r in p.ranges]
        period = math.lcm(*(r.step for r in ranges)) if ranges else 1
        most = max([r.stop or r.start + 1 for r in ranges], default=0) + period
    if kind is Heads and any(_reads(tree, name) for tree in trees for name in ("h", "num_heads")):
        most = max(most, HEADS)
    return list(range(min(most, MAX_CASES))) or [None]


def _reads(tree: Node, name: str) -> bool:
    return any(isinstance(p, Where) and name in p.keep.names() for p in walk(tree))


# -- one pair of trees -----------------------------------------------------------------------------------


def _compare(pair: tuple[Node, Node], specs: tuple[Spec, Spec], limit: int) -> DiffResult:
    if pair[0] is pair[1] or _canonical(pair[0]) is _canonical(pair[1]):
        return DiffResult("equal")
    branches = [lifted.branches if isinstance(lifted := lift_mix(p), Mix) else (p,) for p in pair]
    if len(branches[0]) != len(branches[1]):
        counts = " and ".join(str(len(x)) for x in branches)
        return DiffResult("different", reason=f"they mix {counts} branches")
    found: list[DiffResult] = []
    for i, parts in enumerate(zip(*branches, strict=True)):
        branch = i if len(branches[0]) > 1 else 0
        result = _compare_branch((parts[0], parts[1]), specs, limit)
        if result.outcome == "different" and result.difference is not None:
            return dataclasses.replace(
                result, difference=dataclasses.replace(result.difference, branch=branch)
            )
        found.append(result)
    undecided = [r for r in found if r.outcome == "undecided"]
    return undecided[0] if undecided else found[0]


def _canonical(p: Node) -> Node:
    return Canonicalize().apply(Fold().apply(Module(p))).main


def _compare_branch(pair: tuple[Node, Node], specs: tuple[Spec, Spec], limit: int) -> DiffResult:
    declared = {name: kind for s in specs for name, kind in s.module.inputs.items()}
    names = tuple(name for name, kind in declared.items() if kind == "token")
    spans = [s.module.spans for s in specs]
    compared, alone, error = 0, dict[int, str](), None

    def differ(n: int) -> Difference | None:
        nonlocal compared, error
        bound: list[Node | None] = []
        for p, where in zip(pair, spans, strict=True):
            try:
                bound.append(resolve.at_length(p, n, where))
            except SpecError as wrong:
                bound.append(None)
                error = wrong
        left, right = bound
        if left is None or right is None:
            if left is not right:
                alone[n] = "A" if right is None else "B"
            return None
        compared = max(compared, n)
        return _first_difference(left, right, n, names)

    def first(lengths: Iterable[int]) -> Difference | None:
        return next((found for n in lengths if (found := differ(n)) is not None), None)

    if any(p.holds_choice for p in pair):  # no mask to compare without q and k: a proof, or nothing
        result = _proof(pair)
        advice = "`mask(n, operands=(q, k))` shows it for given ones"
        unknown = f"what is kept is chosen from q and k, and not proved the same for all of them; {advice}"
        return (
            result
            if result.outcome != "undecided"
            else dataclasses.replace(result, checked=0, reason=unknown)
        )
    result, found = DiffResult("undecided"), first(_lengths(pair, limit))
    if found is None:
        result, last = _proof(pair), compared
        if result.outcome == "undecided":
            probe = next((n for n in PROBES if n > limit and differ(n) is not None), 0)
            found = first(range(limit + 1, probe + 1))
            if not compared and error is not None and not alone:
                raise error
            reason = result.reason if compared else "no n was found at which both have a meaning"
            checked = last or (None if compared else 0)  # longer n are tried here and there
            result = dataclasses.replace(result, checked=checked, reason=reason)
    if found is not None:
        result = DiffResult("different", found)
    return dataclasses.replace(result, notes=(*_alone(alone), *result.notes))


def _alone(alone: Mapping[int, str]) -> tuple[str, ...]:
    if not alone:
        return ()
    n, which = next(iter(alone.items()))
    return (f"at n = {n} only {which} {_ALONE}; such n were left out",)


def _lengths(pair: tuple[Node, Node], limit: int) -> list[int]:
    """The n at which masks are compared: up to the limit, and those that grids fit."""
    grids = set[int]()
    for p in (x for tree in pair for x in walk(tree) if isinstance(x, Pattern)):
        shape = getattr(p, "shape", None)
        if isinstance(shape, tuple) and all(e.number is not None for e in shape):
            grids.add(math.prod(int(e) for e in shape))
    return [*range(1, limit + 1), *sorted(n for n in grids if limit < n <= MAX_GRID)]


def _first_difference(a: Node, b: Node, n: int, names: tuple[str, ...]) -> Difference | None:
    for seed in range(SEEDS if names else 1):
        inputs = {name: _labels(name, n, seed) for name in names}
        q = np.arange(n)
        left, right = dense(a, q, n, inputs), dense(b, q, n, inputs)
        found: list[tuple[int, int, Pool, int, int, int]] = []
        for pool in {*left, *right}:
            zeros = np.zeros((n, pool.chunks(n)), np.int32)
            one, other = left.get(pool, zeros), right.get(pool, zeros)
            where = np.argwhere(one != other)
            if len(where):
                i, slot = (int(x) for x in where[0])
                found.append((i, pool.level, pool, slot, int(one[i, slot]), int(other[i, slot])))
        if found:
            i, level, pool, slot, x, y = min(found, key=lambda f: (f[0], f[1], f[2].size, f[3]))
            given = {name: tuple(int(v) for v in values) for name, values in inputs.items()}
            first = slot * pool.stride
            return Difference(n, i, level, first, min(first + pool.size, n), (x, y), inputs=given)
    return None


def _labels(name: str, n: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng([seed, n, *name.encode()])
    return np.sort(rng.integers(0, 4, n)) if seed % 2 == 0 else rng.integers(0, 4, n)


# -- proof for every n -----------------------------------------------------------------------------------


def _proof(pair: tuple[Node, Node]) -> DiffResult:
    """Equal for every n, or the first difference, or why neither is known."""
    points: list[tuple[sets.Point, Pool, Term, Term]] = []
    beyond = False
    try:
        forms = [sets.pattern_set(p) for p in pair]
        lengths = all_of(*(sets.lengths(p) for p in pair))
        if sets.is_empty(lengths, opaque=True):
            raise sets.NotDecided("there is no n at which both have a meaning")
        for pool in {*forms[0], *forms[1]}:
            one, other = (f.get(pool, NOTHING) for f in forms)
            differ, present = _differ(one, other), sets.Domain("present", pool.stride, lengths)
            if not sets.is_empty(differ, present, opaque=True):
                point = sets.smallest(differ, present)
                points += [] if point is None else [(point, pool, one, other)]
            elif not beyond:
                beyond = _beyond(differ, dataclasses.replace(present, queries="anywhere"))
    except sets.NotDecided as why:
        return DiffResult("undecided", reason=why.reason)
    if points:
        first = min(points, key=lambda p: (p[0][:2], p[1].level, p[1].size, p[0][2]))
        return DiffResult("different", _difference(*first))
    note = "queries before the first or after the last key (n_q > n, or a `q_offset`) see different keys"
    return DiffResult("equal", notes=(note,) if beyond else ())


def _beyond(differ: Expr, anywhere: sets.Domain) -> bool:
    """Known to differ for queries that are not among the keys."""
    try:
        return sets.smallest(differ, anywhere) is not None
    except sets.NotDecided:
        return False


def _differ(a: Term, b: Term) -> Expr:
    if a.count is None and b.count is None:
        return (a.keep & ~b.keep) | (b.keep & ~a.keep)
    return a.amount.ne(b.amount)


def _difference(point: sets.Point, pool: Pool, a: Term, b: Term) -> Difference:
    from patterndsl.ir.evaluate import evaluate

    n, q, slot = point
    env = {"n": n, "q": q, "k": slot, "c": slot}

    def count(term: Term) -> int:
        # Numbers over n, such as floor(n / 3), are found first: arrays know no fractions.
        bound = resolve.at_length(Where(term.amount), n)
        assert isinstance(bound, Where)
        return int(np.asarray(evaluate(bound.keep, env)))

    first = slot * pool.stride
    return Difference(n, q, pool.level, first, min(first + pool.size, n), (count(a), count(b)))
