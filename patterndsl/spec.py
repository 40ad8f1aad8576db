"""`Spec`: a pattern as a user holds it, from text or built in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patterndsl.ir.nodes import (
    Complement,
    Difference,
    Intersection,
    Module,
    Node,
    Sum,
    SymmetricDifference,
    Union,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from patterndsl.ir.nodes import Pool

_AND_OR = (
    "a pattern has no truth value: combine patterns with `&`, `|` and `~` (`and`, `or`, `not` and chained "
    "comparisons belong to predicates)"
)

MOST_PAIRS = 2**30
"""Pairs that a dense mask may have: 4 GiB of counts."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """What each query may attend to, dense: ``counts`` [n_q, slots] (0: not kept), and for each slot its
    level (0: a token) and the tokens ``start`` … ``stop`` − 1 that it stands for. ``pools`` names the source
    of each slot."""

    counts: npt.NDArray[np.int32]
    level: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    pools: tuple[Pool, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Spec:
    """A declarative pattern of attention sparsity. Immutable; made by `parse`, `load` or the constructors."""

    module: Module
    name: str = "<python>"

    # -- combining -----------------------------------------------------------------------------------

    def _with(self, other: object, kind: Any) -> Spec:
        other = as_spec(other)
        module = join_modules(self.module, other.module)
        mine, theirs = self.module.main, other.module.main
        if kind is Difference:
            return Spec(dataclasses.replace(module, main=Difference(mine, theirs)))
        flat: list[Node] = []
        for m in (mine, theirs):
            flat.extend(vars(m)["members"] if type(m) is kind else (m,))
        return Spec(dataclasses.replace(module, main=kind(tuple(flat))))

    def __or__(self, other: object) -> Spec:
        return self._with(other, Union)

    def __and__(self, other: object) -> Spec:
        return self._with(other, Intersection)

    def __xor__(self, other: object) -> Spec:
        return self._with(other, SymmetricDifference)

    def __add__(self, other: object) -> Spec:
        return self._with(other, Sum)

    def __sub__(self, other: object) -> Spec:
        return self._with(other, Difference)

    def __invert__(self) -> Spec:
        return Spec(dataclasses.replace(self.module, main=Complement(self.module.main)))

    def __bool__(self) -> bool:
        raise TypeError(_AND_OR)

    def __eq__(self, other: object) -> bool:
        """The same pattern as written (`patterndsl diff` decides whether two mean the same)."""
        return isinstance(other, Spec) and self.module == other.module

    def __hash__(self) -> int:
        return hash(self.module.main)

    def __repr__(self) -> str:
        return f"Spec({self.module.main})"

    def __str__(self) -> str:
        return str(self.module.main)

    # -- meaning -------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the run-time inputs."""
        return tuple(self.module.inputs)

    def bind(
        self,
        n: int,
        *,
        params: Mapping[str, int] | None = None,
        head: int = 0,
        num_heads: int | None = None,
        layer: int = 0,
    ) -> Node:
        """The pattern tree of one head of one layer at a length, every number known. Raises SpecError."""
        from patterndsl.diagnostics import BadCall, SpecError
        from patterndsl.ir import resolve

        check_positive("n", n)
        module = resolve.inline(resolve.set_params(self.module, params))
        node = resolve.pick_head(resolve.pick_layer(module.main, layer), head, num_heads)
        if num_heads is None and "num_heads" in resolve.names(node):
            reason = "the spec reads the number of heads, which is not known here"
            raise SpecError(BadCall(argument="num_heads", reason=reason, advice="pass `num_heads=…`"))
        return resolve.at_length(node, n, module.spans)

    def slots(
        self,
        n: int,
        n_q: int | None = None,
        *,
        params: Mapping[str, int] | None = None,
        head: int = 0,
        num_heads: int | None = None,
        layer: int = 0,
        inputs: Mapping[str, Any] | None = None,
        q_offset: int | None = None,
        operands: tuple[Any, Any] | None = None,
    ) -> Slots:
        """Tokens and summaries that each query sees, dense: for small n.

        Positions of the queries are ``q_offset`` … (by default the last query is at the last key).
        ``inputs``: an integer array [n] for each run-time input (centroids as in a call). ``operands``: q
        [n_q, N, H] and k [n, K, H], where what is kept is chosen from them.
        """
        import numpy as np

        from patterndsl.diagnostics import BadCall, ChosenFromData, SpecError
        from patterndsl.ir.dense import dense
        from patterndsl.ir.nodes import Mix
        from patterndsl.ir.normal import TOKENS, lift_mix

        node = self.bind(n, params=params, head=head, num_heads=num_heads, layer=layer)
        check_dense(n, n if n_q is None else n_q)
        q = query_positions(n, n_q, q_offset)
        if isinstance(lift_mix(node), Mix):
            reason = "the branches of `mix` are normalised apart and have no mask in common"
            raise SpecError(BadCall(argument="spec", reason=reason, advice="look at one branch at a time"))
        if node.holds_choice and operands is None:
            raise SpecError(ChosenFromData(pattern=str(node)))
        values = check_inputs(self.module.inputs, inputs, n)
        if operands is not None and node.holds_choice:
            from patterndsl.backends.facts import dense_of

            found = dense_of(node, operands, q, head, self.module.inputs, values)
        else:
            found = dense(node, q, n, values)
        found.setdefault(TOKENS, np.zeros((len(q), n), np.int32))
        pools = sorted(found, key=lambda p: (p.level, p.size))
        level, start, stop, source = [], [], [], []
        for pool in pools:
            c = np.arange(pool.chunks(n))
            level.append(np.full(len(c), pool.level, np.int32))
            start.append(c * pool.stride)
            stop.append(np.minimum(c * pool.stride + pool.size, n))
            source.extend([pool] * len(c))
        counts = np.concatenate([found[p] for p in pools], axis=1)
        return Slots(
            counts, np.concatenate(level), np.concatenate(start), np.concatenate(stop), tuple(source)
        )

    def mask(
        self,
        n: int,
        n_q: int | None = None,
        *,
        params: Mapping[str, int] | None = None,
        head: int = 0,
        num_heads: int | None = None,
        layer: int = 0,
        inputs: Mapping[str, Any] | None = None,
        q_offset: int | None = None,
        operands: tuple[Any, Any] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """The token pairs that one head of one layer keeps, bool [n_q, n], dense: for small n. Summaries are
        not in it (see `slots`)."""
        slots = self.slots(
            n,
            n_q,
            params=params,
            head=head,
            num_heads=num_heads,
            layer=layer,
            inputs=inputs,
            q_offset=q_offset,
            operands=operands,
        )
        kept: npt.NDArray[np.bool_] = slots.counts[:, slots.level == 0] > 0
        return kept


def check_dense(n: int, n_q: int) -> None:
    """Raise SpecError where arrays [n_q, n] would be too large to be written out."""
    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import BadCall

    if n * n_q > MOST_PAIRS:
        reason = f"{n_q:,} queries × {n:,} keys are too many pairs for a dense mask"
        raise SpecError(BadCall(argument="n", reason=reason, advice="`patterndsl.analyze` counts at any n"))


def query_positions(n: int, n_q: int | None, q_offset: int | None = None) -> npt.NDArray[np.int64]:
    """Absolute positions of the queries."""
    import numpy as np

    n_q = n if n_q is None else n_q
    check_positive("n_q", n_q)
    first = n - n_q if q_offset is None else q_offset
    return np.arange(first, first + n_q)


def check_inputs(
    kinds: Mapping[str, str], given: Mapping[str, Any] | None, n: int, arguments: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The run-time inputs: integer arrays whose last axis is n, and centroids. ``arguments`` are the other
    names that the call knows, for which one may be misspelt. Raises SpecError."""
    import numpy as np

    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import InputShape, MissingInput

    given = given or {}
    check_names(tuple(kinds), given, arguments)
    found = {}
    for name, kind in kinds.items():
        if name not in given:
            raise SpecError(MissingInput(name=name, kind=kind))
        value = given[name]
        found[name] = value = value if hasattr(value, "dtype") else np.asarray(value)
        check_dtype(name, kind, value.dtype)
        if kind == "centroids":
            expected, fits = "[k, head_dim] or [heads, k, head_dim]", value.ndim in (2, 3)
        else:
            expected, fits = f"[{n}] or [batch, {n}]", value.ndim in (1, 2) and value.shape[-1] == n
        if not fits:
            raise SpecError(InputShape(name=name, shape=tuple(value.shape), expected=expected))
    return found


def check_dtype(name: str, kind: str, dtype: Any) -> None:
    """Raise SpecError where an input of this kind holds no such numbers."""
    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import InputDtype

    if kind == "centroids" and "float" not in dtype.name:
        raise SpecError(InputDtype(name=name, dtype=str(dtype), expected="floating-point numbers"))
    if kind == "token" and dtype.kind not in "iu":
        raise SpecError(InputDtype(name=name, dtype=str(dtype)))


def of_kind(kind: str, kinds: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The run-time inputs of one kind."""
    return {name: value for name, value in values.items() if kinds.get(name) == kind}


def check_names(names: tuple[str, ...], given: Mapping[str, Any], arguments: tuple[str, ...] = ()) -> None:
    """Raise SpecError where an input is given that the spec does not declare."""
    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import UnexpectedInput

    for name in given:
        if name not in names:
            raise SpecError(UnexpectedInput(name=name, candidates=names, arguments=arguments))


def check_positive(name: str, value: int) -> None:
    """Raise SpecError where a length or number is not whole and at least 1."""
    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import BadCall

    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise SpecError(
            BadCall(argument=name, reason=f"a whole number of at least 1 is needed, not {value!r}")
        )


def join_modules(a: Module, b: Module) -> Module:
    """The declarations of both; a name that means two things is refused."""
    declared: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
        ("param", a.params, b.params),
        ("input", a.inputs, b.inputs),
        ("pattern", a.functions, b.functions),
    )
    for kind, mine, theirs in declared:
        for name in mine.keys() & theirs.keys():
            if mine[name] != theirs[name]:
                raise ValueError(
                    f"the two specs declare the {kind} {name!r} differently: rename it in one of them"
                )
    return Module(
        a.main,
        {**a.params, **b.params},
        {**a.inputs, **b.inputs},
        {**a.functions, **b.functions},
        {**b.spans, **a.spans},
    )


def as_spec(x: object) -> Spec:
    """A spec from itself, its text, or a node."""
    if isinstance(x, Spec):
        return x
    if isinstance(x, str):
        from patterndsl.frontend import parse

        if x.endswith(".attn") and len(x.split()) == 1:
            from patterndsl.diagnostics import SpecError
            from patterndsl.diagnostics.runtime import BadCall

            reason = f"{x!r} is the name of a file, and no spec"
            raise SpecError(
                BadCall(argument="spec", reason=reason, advice="read it: `patterndsl.load(path)`")
            )
        return parse(x)
    if isinstance(x, Node):
        return Spec(Module(x))
    raise TypeError(f"expected a pattern (a Spec or its text), got {type(x).__name__}")
