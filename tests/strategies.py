"""Random patterns for property tests.

Everything is drawn from the registry, so that a new built-in takes part by itself. Arguments are valid at
every n, but for grids, which fit one n only (`grids`).
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from patterndsl.diagnostics import SpecError
from patterndsl.ir.expr import Expr, K, N, Q, as_expr, build, maximum, minimum, read, where
from patterndsl.ir.nodes import (
    Complement,
    Difference,
    Intersection,
    Module,
    Node,
    Pattern,
    Sum,
    SymmetricDifference,
    Tokens,
    Union,
    Where,
)
from patterndsl.ir.normal import has_summaries, postorder, walk
from patterndsl.ir.resolve import at_length, check_arguments
from patterndsl.patterns import builtins
from patterndsl.patterns.base import Parameter, parameters
from patterndsl.patterns.cluster import Cluster, centroid_counts
from patterndsl.spec import Spec

INPUT = "doc"
"""The one run-time input that random patterns read of each token."""
CENTROIDS = "mu"

Nodes = st.SearchStrategy[Node]


LONGEST = 300
"""The longest sequence that random specs are checked at."""


def specs(depth: int = 4, **options: bool) -> st.SearchStrategy[Spec]:
    """Specs over pattern trees of at most that depth; options as for `nodes`."""
    return nodes(depth, **options).map(as_module).map(Spec)


def as_module(node: Node) -> Module:
    """The module of a tree, with the inputs that it reads."""
    return Module(node, inputs=inputs_of(node))


def inputs_of(node: Node) -> dict[str, str]:
    """The run-time inputs that a tree reads, and their kinds."""
    found: dict[str, str] = {}
    for p in walk(node):
        if isinstance(p, Where):
            found |= dict.fromkeys(p.keep.inputs(), "token")
        elif isinstance(p, Pattern):
            read = (q for q in parameters(type(p)) if q.kind.sort == "input")
            found |= {getattr(p, q.name): q.kind.holds for q in read}
    return found


def centroid_values(nodes: Iterable[Node], head_dim: int) -> dict[str, Any]:
    """Centroids for patterns bound at n. Rejects the example where two want different numbers of them."""
    nodes = list(nodes)
    counts = centroid_counts(nodes)
    for p in postorder(*nodes):
        if isinstance(p, Cluster) and int(p.k) != counts[p.centroids]:
            reject()
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((k, head_dim), np.float32) for name, k in counts.items()}


def input_values(names: tuple[str, ...], n: int, seed: int = 0) -> Mapping[str, Any]:
    """Short documents for each input: a few labels, in runs and scattered."""
    rng = np.random.default_rng([seed, n])
    return {name: np.sort(rng.integers(0, 4, n)) ^ (rng.random(n) < 0.2) for name in names}


def fact_values(node: Node, n: int) -> Mapping[Any, Any]:
    """What patterns bound at n might read of q and k: any numbers, though the same ones for choices that
    differ in `among` alone, which may be written in several ways."""
    found = {}
    for p in walk(node):
        if isinstance(p, Pattern) and _chooses(type(p)):
            own = [getattr(p, x.name) for x in parameters(type(p)) if x.kind.sort != "pattern"]
            rng = np.random.default_rng(zlib.crc32(f"{p.name} {own}".encode()))
            read = {x.value: len(x.args) for x in p.keep(Q, K, as_expr(n)).walk() if x.op == "fact"}
            found |= {fact: (rng.integers(-1, 8, (64,) * axes), 0) for fact, axes in read.items()}
    return found


@functools.cache
def nodes(depth: int = 4, **options: bool) -> Nodes:
    """Pattern trees of at most that depth. Options, all on by default: ``summaries`` (`hierarchical` and
    `tree` where an operator allows them), ``inputs`` (run-time inputs), ``sums`` (counts above one), ``of_n``
    (arguments that depend on n), ``blocks`` (the transform of that name; never nested, as it takes size²
    steps). Off by default: ``choice`` (patterns chosen from q and k, which have no mask without them)."""
    return _tree(depth, **options)


@st.composite
def _tree(
    draw: st.DrawFn,
    depth: int = 4,
    *,
    summaries: bool = True,
    inputs: bool = True,
    sums: bool = True,
    of_n: bool = True,
    blocks: bool = True,
    choice: bool = False,
) -> Node:
    def again(depth: int, summaries: bool, blocks: bool = blocks, choice: bool = choice) -> Node:
        options = {"inputs": inputs, "sums": sums, "of_n": of_n, "choice": choice}
        return draw(nodes(depth, summaries=summaries, blocks=blocks, **options))

    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw(leaves(summaries=summaries, inputs=inputs, of_n=of_n, choice=choice))
    kinds = ["union", "intersection", "difference", "xor", "complement", "transform"] + ["sum"] * sums
    match draw(st.sampled_from(kinds)):
        case "union" | "sum" as kind:
            join = Union if kind == "union" else Sum
            return join(tuple(again(depth - 1, summaries) for _ in range(draw(st.integers(2, 3)))))
        case "intersection":
            members: list[Node] = []
            for _ in range(draw(st.integers(2, 3))):
                free = summaries and not any(map(has_summaries, members))
                members.append(again(depth - 1, free))
            return Intersection(tuple(members))
        case "difference":
            return Difference(again(depth - 1, summaries), again(depth - 1, False))
        case "xor":
            return SymmetricDifference((again(depth - 1, False), again(depth - 1, False)))
        case "complement":
            return Complement(again(depth - 1, False))
    transforms = [c for c in builtins().values() if _sorts(c) & {"pattern"} and (choice or not _chooses(c))]
    cls = draw(st.sampled_from([c for c in transforms if blocks or c.name != "blocks"]))
    operand = again(depth - 1, False, blocks and cls.name != "blocks", choice=False)
    return draw(_arguments(cls, of_n=False, operand=operand))


@functools.cache
def leaves(*, summaries: bool = True, inputs: bool = True, of_n: bool = True, choice: bool = False) -> Nodes:
    """Built-in patterns without operands, and predicates."""
    usable = [
        c
        for c in builtins().values()
        if not _sorts(c) & {"pattern", "shape"}
        and (inputs or "input" not in _sorts(c))
        and (choice or not _chooses(c))
    ]
    plain = [_arguments(c, of_n=of_n) for c in usable if c.summaries is Pattern.summaries]
    holders = [_arguments(c, of_n=of_n) for c in usable if c.summaries is not Pattern.summaries]
    either = st.one_of(*plain, predicates(inputs=inputs).map(Where))
    return st.one_of(either, either, *holders) if summaries else either


def _sorts(cls: type[Pattern]) -> set[str]:
    return {p.kind.sort for p in parameters(cls)}


def _chooses(cls: type[Pattern]) -> bool:
    return cls.facts is not Pattern.facts


@st.composite
def _arguments(draw: st.DrawFn, cls: type[Pattern], of_n: bool, operand: Node | None = None) -> Node:
    """The built-in with random arguments that its checks accept."""
    for _ in range(20):
        given = [operand if p.kind.sort == "pattern" else draw(_argument(p, of_n)) for p in parameters(cls)]
        node = cls(*given)
        try:
            check_arguments(node, None)
            if _chooses(cls):  # `lsh` wants an even number of buckets, and 64 rounds at most
                all(at_length(node, n) for n in (1, 4, 5, LONGEST))
        except SpecError:
            continue
        return node
    reject()


@functools.cache
def _argument(p: Parameter, of_n: bool) -> st.SearchStrategy[Any]:
    kind = p.kind
    match kind.sort:
        case "number":
            least = -6 if kind.least is None else kind.least
            value: st.SearchStrategy[Any] = st.integers(least, least + (7 if p.name != "size" else 4))
            value = value.map(as_expr)
            if of_n and kind.least is not None:
                value = st.one_of(value, value, value, st.sampled_from(_OF_N).map(lambda e: e + kind.least))
        case "decimal":
            value = st.floats(0.001, 1.0)
        case "tokens":
            value = st.lists(st.one_of(*_ITEMS), min_size=1, max_size=3).map(lambda x: Tokens(tuple(x)))
        case "input":
            value = st.just(INPUT if kind.holds == "token" else CENTROIDS)
        case "flag":
            value = st.booleans()
        case "string":
            value = st.sampled_from(kind.choices)
        case _:
            raise AssertionError(f"no random {kind.sort}")
    return st.none() | value if p.optional else value


_OF_N = [
    N // 4,
    build("ceil", build("sqrt", N)),
    build("ceil", build("log2", N)),
]
_END = st.none() | st.integers(-20, 20).map(as_expr)
_ITEMS = [
    st.sampled_from([0, -1]).map(as_expr),  # the only positions that exist at every n
    st.tuples(_END, _END, st.none() | st.integers(1, 9).map(as_expr)),
]


@functools.cache
def numbers(*, inputs: bool = False, depth: int = 2) -> st.SearchStrategy[Expr]:
    """Quasi-affine numbers over q and k (and, with ``inputs``, the run-time input at either)."""
    names = [Q, K, N] + [read(INPUT, x) for x in (Q, K)] * inputs
    leaf = st.one_of(st.sampled_from(names), st.integers(-9, 9).map(as_expr))
    if depth == 0:
        return leaf
    under = numbers(inputs=inputs, depth=depth - 1)
    factor = st.integers(-4, 4).map(as_expr)
    divisor = st.sampled_from([-3, 2, 3, 4, 7]).map(as_expr)
    return st.one_of(
        leaf,
        st.tuples(under, under).map(lambda t: t[0] + t[1]),
        st.tuples(under, under).map(lambda t: t[0] - t[1]),
        st.tuples(under, factor).map(lambda t: t[0] * t[1]),
        st.tuples(under, divisor).map(lambda t: t[0] // t[1]),
        st.tuples(under, divisor).map(lambda t: t[0] % t[1]),
        under.map(abs),
        st.tuples(under, under).map(lambda t: minimum(*t)),
        st.tuples(under, under).map(lambda t: maximum(*t)),
    )


@functools.cache
def predicates(*, inputs: bool = False, depth: int = 2) -> st.SearchStrategy[Expr]:
    """Quasi-affine predicates over q and k."""
    number = numbers(inputs=inputs)
    compare = st.tuples(st.sampled_from(["lt", "le", "eq", "ne"]), number, number).map(
        lambda t: build(t[0], t[1], t[2])
    )
    if depth == 0:
        return compare
    under = predicates(inputs=inputs, depth=depth - 1)
    return st.one_of(
        compare,
        st.tuples(under, under).map(lambda t: t[0] & t[1]),
        st.tuples(under, under).map(lambda t: t[0] | t[1]),
        under.map(lambda e: ~e),
        st.tuples(under, number, number).map(lambda t: where(*t) <= 3),
    )


def grids() -> st.SearchStrategy[tuple[int, Node]]:
    """A pattern on a grid, and the n that it fits."""
    return _grid()


@st.composite
def _grid(draw: st.DrawFn) -> tuple[int, Node]:
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    cls = draw(st.sampled_from([c for c in builtins().values() if "shape" in _sorts(c)]))
    for _ in range(200):
        given = [_grid_argument(draw, p, shape) for p in parameters(cls)]
        node = cls(*given)
        try:
            check_arguments(node, int(np.prod(shape)))
        except SpecError:
            continue
        return int(np.prod(shape)), node
    given = [tuple(map(as_expr, shape)) if p.name == "shape" else _smallest(p) for p in parameters(cls)]
    return int(np.prod(shape)), cls(*given)


def _grid_argument(draw: st.DrawFn, p: Parameter, shape: list[int]) -> Any:
    if p.name == "shape":
        return tuple(map(as_expr, shape))
    if p.kind.sort != "shape":
        return draw(_argument(p, of_n=False))
    least = p.kind.least or 0
    most = 1 if p.name == "causal" else max(shape)
    axes = draw(st.sampled_from([1, len(shape)]))
    return tuple(as_expr(draw(st.integers(least, max(least, most)))) for _ in range(axes))


def _smallest(p: Parameter) -> Any:
    if p.required:
        least = as_expr(p.kind.least or 0)
        return (least,) if p.kind.sort == "shape" else least
    return p.default
