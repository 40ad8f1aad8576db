"""`autotune`: the best alternatives of a plan measured, and the choice stored for `compile` to find.

A stored choice is one file in the user's cache folder (`patterndsl.cache`), named by a hash of all that it
depends on: the pattern as it comes out at the length, the shapes, the device, the backend and the version of
this package.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patterndsl import cache
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall
from patterndsl.ir.nodes import Node
from patterndsl.plan.cost import Workload
from patterndsl.plan.plan import Alternative, PartChoice
from patterndsl.spec import Spec, as_spec

if TYPE_CHECKING:
    from patterndsl.plan.build import Given
    from patterndsl.plan.plan import Plan
    from patterndsl.timing import Shapes

KIND = "a choice of patterndsl.autotune"
Nodes = Sequence[tuple[Sequence[int], Node]]
Lengths = tuple[int, int, int]
"""n, n_q and the position of the first query."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One alternative: what it is, its predicted seconds (of the forward pass) and its measured ones."""

    what: str
    predicted: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What `autotune` found for one shape: all that it measured, fastest first, and the file that now holds
    the choice (None where it was not to be stored)."""

    shapes: Shapes
    measured: tuple[Measured, ...]
    path: Path | None

    def __str__(self) -> str:
        s = self.shapes
        head = f"n = {s.n}, {s.n_q} queries, batch {s.batch}, {s.heads} heads × {s.head_dim}, {s.dtype}"
        lines = [
            f"  {1000 * m.seconds:.3g} ms (predicted {1000 * m.predicted:.3g}): {m.what}"
            for m in self.measured
        ]
        return "\n".join([head, *lines, f"  stored in {self.path}" if self.path else "  not stored"])


def autotune(
    spec: Spec | str,
    shapes: Sequence[Sequence[Any]],
    *,
    params: Mapping[str, int] | None = None,
    layer: int = 0,
    backend: str = "auto",
    dtype: str = "float32",
    backward: bool = False,
    most: int = 6,
    repeats: int = 5,
    inputs: Mapping[str, Any] | None = None,
    store: bool = True,
) -> list[Tuned]:
    """Measure the alternatives that the cost model thinks best, on this machine, and store the fastest.

    ``shapes``: for each case the shape of q, [B, T, N, H], where k and v have it too, or the pair of the
    shapes of q and k. `compile` then uses the stored choice for the same pattern, shapes, device and version
    of this package, unless it is given block_sizes. ``backward``: measure forward and backward together.
    ``most``: alternatives measured for each branch of each group of heads, each of which is compiled.
    ``inputs``: the spec's run-time inputs. Alternatives that the backend cannot run are left out. Raises
    SpecError for arguments that make no sense and OSError where the choice cannot be written.
    """
    from patterndsl.timing import operands

    spec = as_spec(spec)
    for name, value in (("most", most), ("repeats", repeats)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SpecError(BadCall(argument=name, reason=f"a positive number is needed, not {value!r}"))
    missing = [name for name in spec.inputs if name not in (inputs or {})]
    if missing:
        reason = f"the spec reads `{missing[0]}`, on whose values the time depends"
        raise SpecError(BadCall(argument="inputs", reason=reason, advice="pass inputs={…} as in a call"))
    cases = [_shapes(x, dtype) for x in shapes]
    found = []
    for case in cases:
        tuner = Tuner(spec, case, params, layer, backend)
        arrays, more = operands(case, tuner.branches)
        measured, best = tuner.run(arrays, {**more, **(inputs or {})}, backward, most, repeats)
        path = None
        if store:
            path = _write(tuner.nodes, tuner.lengths, tuner.workload, best, measured)
        found.append(Tuned(case, measured, path))
    return found


class Tuner:
    """One case: its plan, and the plans beside it."""

    def __init__(
        self, spec: Spec, shapes: Shapes, params: Mapping[str, int] | None, layer: int, backend: str
    ) -> None:
        from patterndsl import api

        self.make = functools.partial(api.Attention, spec, params, layer, backend, None)
        self.shapes, self.workload = shapes, shapes.workload(backend)
        self.lengths = (shapes.n, shapes.n_q, shapes.n - shapes.n_q)
        self.nodes = api.head_nodes(self.make().module, shapes.n, shapes.heads)

    @functools.cached_property
    def questions(self) -> list[list[Any]]:
        """For each pattern and each of its branches, what there is to choose."""
        from patterndsl.plan.build import questions
        from patterndsl.plan.choose import Shape
        from patterndsl.plan.rates import rates_of

        rates = rates_of(self.workload.platform, self.workload.backend)
        return [
            questions(node, Shape(*self.lengths), None, self.workload.of_heads(len(heads)), rates)
            for heads, node in _by_node(self.nodes)
        ]

    @property
    def branches(self) -> int:
        return max(len(q) for q in self.questions)

    def run(
        self,
        arrays: tuple[Any, Any, Any],
        more: Mapping[str, Any],
        backward: bool,
        most: int,
        repeats: int,
    ) -> tuple[tuple[Measured, ...], Given]:
        """Vary one branch after the other, the others being as they are best known."""
        from patterndsl.plan.choose import alternatives
        from patterndsl.plan.stats import described
        from patterndsl.timing import measure

        ranked = [[alternatives(q, every=True)[:most] for q in group] for group in self.questions]
        best = [[branch[0].alternative for branch in group] for group in ranked]
        known: dict[Given, Measured] = {}
        for i, group in enumerate(ranked):
            for j, branch in enumerate(group):
                for alternative, price, _ in branch:
                    given = _with(best, i, j, alternative)
                    if given in known:
                        continue
                    attention = self.make(given)
                    if self.plan(attention) is None:
                        continue
                    seconds = measure(attention, arrays, more, backward=backward, repeats=repeats)
                    what = described(alternative, self.questions[i][j].texts)
                    known[given] = Measured(what, price, seconds)
                if not known:
                    raise SpecError(BadCall(argument="backend", reason="it can run none of the alternatives"))
                fastest = min(known, key=lambda g: known[g].seconds)
                best = [list(x) for x in fastest]
        measured = tuple(sorted(known.values(), key=lambda m: m.seconds))
        return measured, min(known, key=lambda g: known[g].seconds)

    def plan(self, attention: Any) -> Plan | None:
        """The plan of one of its attention functions; None where there is none, or the backend cannot run
        it."""
        n, n_q, offset = self.lengths
        sizes = {"num_heads": self.shapes.heads, "q_offset": offset, "workload": self.workload}
        try:
            plan: Plan = attention.plan(n, n_q, **sizes)
            attention.pick(plan, self.shapes.target())
        except SpecError:
            return None
        return plan

    def every(self, sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Any, Plan]]:
        """Each structure in tiles of each of the sizes: what it is, its attention function and plan. All
        branches are in the same tiles and, where they have as many structures, take them together."""
        from patterndsl.plan.choose import in_tiles, structures
        from patterndsl.plan.stats import described

        ways = [[structures(q) for q in group] for group in self.questions]
        for i in range(max(len(w) for group in ways for w in group)):
            for blocks in sizes:
                given = tuple(
                    tuple(in_tiles(q, w[min(i, len(w) - 1)], blocks) for q, w in zip(*pair, strict=True))
                    for pair in zip(self.questions, ways, strict=True)
                )
                attention = self.make(given)
                plan = self.plan(attention)
                if plan is not None:
                    yield described(given[0][0], self.questions[0][0].texts), attention, plan


def _with(best: list[list[Alternative]], i: int, j: int, new: Alternative) -> Given:
    return tuple(
        tuple(new if (a, b) == (i, j) else x for b, x in enumerate(group)) for a, group in enumerate(best)
    )


def _by_node(nodes: Nodes) -> list[tuple[list[int], Node]]:
    """Heads by pattern, as plans group them."""
    found: dict[Node, list[int]] = {}
    for heads, node in nodes:
        found.setdefault(node, []).extend(heads)
    return [(heads, node) for node, heads in found.items()]


def _shapes(given: Sequence[Any], dtype: str) -> Shapes:
    from patterndsl.timing import Shapes

    pair = (
        isinstance(given, (tuple, list))
        and len(given) == 2
        and all(isinstance(x, (tuple, list)) for x in given)
    )
    q, k = given if pair else (given, given)
    whole = all(
        isinstance(x, (tuple, list))
        and len(x) == 4
        and all(isinstance(y, int) and not isinstance(y, bool) and y > 0 for y in x)
        for x in (q, k)
    )
    if not whole or q[0] != k[0] or q[3] != k[3] or q[2] % k[2]:
        reason = (
            f"each is [B, T, N, H] of q, or a pair with k's [B, S, K, H], N a multiple of K, not {given!r}"
        )
        raise SpecError(BadCall(argument="shapes", reason=reason))
    return Shapes(k[1], q[1], q[0], q[2], k[2], q[3], k[3], dtype)


# -- stored choices --------------------------------------------------------------------------------------


def stored(nodes: Nodes, lengths: tuple[int, int, int], workload: Workload) -> tuple[Given | None, str]:
    """The choice that `autotune` stored for equal keys, and where it comes from; None where there is none."""
    if "jax" not in sys.modules:
        return None, ""
    key = _key(nodes, lengths, workload)
    name = _name(key)
    data = cache.read(name, KIND)
    if data is None:
        return None, ""
    try:
        if data["key"] != key:
            raise ValueError("it is for something else")
        given = tuple(tuple(_alternative(a) for a in group) for group in data["choice"])
        source = f"measured by autotune on {data['date']}"
        _check(given, nodes, lengths, workload)
    except (KeyError, TypeError, ValueError) as error:
        cache.ignored(str(cache.folder() / name), str(error) or type(error).__name__)
        return None, ""
    return given, source


def _check(given: Given, nodes: Nodes, lengths: Lengths, workload: Workload) -> None:
    """Raise ValueError where a choice does not fit the pattern that it is for."""
    from patterndsl.plan.build import check_given
    from patterndsl.plan.choose import Shape

    check_given(given, [node for _, node in _by_node(nodes)], Shape(*lengths), workload)


def _write(
    nodes: Nodes, lengths: Lengths, workload: Workload, best: Given, measured: Sequence[Measured]
) -> Path:
    key = _key(nodes, lengths, workload)
    choice = [[[dataclasses.asdict(p) for p in a] for a in group] for group in best]
    seconds = [dataclasses.asdict(m) for m in measured]
    date = time.strftime("%Y-%m-%d")
    return cache.write(_name(key), KIND, {"key": key, "choice": choice, "measured": seconds, "date": date})


def _key(nodes: Nodes, lengths: Lengths, workload: Workload) -> dict[str, Any]:
    """All that a choice depends on, as plain JSON."""
    from patterndsl import __version__

    patterns = [[sorted(heads), str(node)] for heads, node in _by_node(nodes)]
    return {
        "version": __version__,
        "device": device(),
        "patterns": patterns,
        "lengths": list(lengths),
        "workload": dataclasses.asdict(workload),
    }


def _name(key: Mapping[str, Any]) -> str:
    return f"choices/{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.json"


@functools.cache
def device() -> str:
    """The kind of device that JAX runs on; of CPUs, which."""
    import jax

    kind = str(jax.devices()[0].device_kind)
    if jax.default_backend() != "cpu":
        return kind
    return f"{processor()}, {os.cpu_count()} cores"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = []
    if info.exists():
        lines = info.read_text("utf-8", "replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _alternative(data: Any) -> Alternative:
    names = [f.name for f in dataclasses.fields(PartChoice)]
    if not isinstance(data, list) or not data:
        raise ValueError("an alternative is a list of parts")
    return tuple(PartChoice(**{name: _value(name, part[name]) for name in names}) for part in data)


def _value(name: str, x: Any) -> Any:
    """A field of a part, checked."""
    whole = isinstance(x, int) and not isinstance(x, bool)
    match name:
        case "members" if x is None or (isinstance(x, list) and all(isinstance(i, int) for i in x)):
            return None if x is None else tuple(x)
        case "summaries" if isinstance(x, bool):
            return x
        case "layout" if isinstance(x, str):
            return x
        case "block_q" | "block_k" if whole and 0 < x <= 4096:
            return x
    raise ValueError(f"its {name} is {x!r}")
