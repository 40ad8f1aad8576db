"""A spec tried out: run on random q, k, v, compared with the reference, timed against dense attention."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from patterndsl.plan.cost import Workload
from patterndsl.spec import Spec
from patterndsl.targets import chip_of, platform_in_use, priced_as
from patterndsl.timing import Shapes

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.backends import Target
    from patterndsl.plan.plan import Plan

ALL_ROWS = 2**29
"""Up to this many logits, all queries are compared with the reference; beyond, a sample of them."""
AT_ONCE = 2**24
"""Logits that the reference makes at a time."""
SAMPLED_BLOCKS = 5
DENSE_LOGITS = 2**30
"""Beyond this many logits (4 bytes each) dense attention is not timed."""

ENOUGH_SECONDS = 4
"""No further repetition is begun after so much time."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """q [batch, n, heads, head_dim]; k and v [batch, n, kv_heads, head_dim]."""

    n: int
    batch: int = 1
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 64
    dtype: str = "float32"

    @property
    def logits(self) -> int:
        """Of dense attention."""
        return self.batch * self.heads * self.n * self.n

    @property
    def nbytes(self) -> int:
        """Bytes of q, k and v."""
        return sum(math.prod(s) for s in self.operands()) * (4 if self.dtype == "float32" else 2)

    def operands(self) -> list[tuple[int, int, int, int]]:
        """The shapes of q, k and v."""
        return [(self.batch, self.n, h, self.head_dim) for h in (self.heads, self.kv_heads, self.kv_heads)]

    def plan(self, attention: Attention) -> Plan:
        """How such operands are run on the function's device, or that at hand where JAX is in use; else how
        they would be on a CPU."""
        platform, chip = platform_in_use(attention.device), chip_of(attention.device)
        itemsize = 4 if self.dtype == "float32" else 2
        sizes = (self.batch, self.heads, self.kv_heads, self.head_dim, self.head_dim, itemsize)
        workload = Workload(*sizes, platform, priced_as(attention.backend, platform, self.dtype, chip))
        return attention.plan(self.n, num_heads=self.heads, workload=workload)

    def target(self, attention: Attention) -> Target:
        """What such operands are lowered for, likewise."""
        from patterndsl.backends import Target

        sizes = (self.batch, self.heads, self.kv_heads, self.head_dim, self.head_dim)
        device = attention.device
        return Target(platform_in_use(device), self.dtype, *sizes, chip=chip_of(device))

    def abstract(self, attention: Attention, batch: Any = None) -> tuple[list[Any], dict[str, Any]]:
        """q, k and v, and what else the function is called with (run-time inputs, a mixture's gates), as
        shapes and dtypes. ``batch``: in place of the shape's own, as a symbolic size."""
        import jax
        import jax.numpy as jnp

        from patterndsl.patterns.cluster import centroid_counts

        make: Any = jax.ShapeDtypeStruct
        b = self.batch if batch is None else batch
        operands = [make((b, *s[1:]), jnp.dtype(self.dtype)) for s in self.operands()]
        plan = self.plan(attention)
        counts = centroid_counts(group.node for group in plan.groups)
        more = {}
        for name, kind in attention.spec.module.inputs.items():
            centroids = (self.heads, counts.get(name, 1), self.head_dim)
            token = kind == "token"
            more[name] = make((b, self.n) if token else centroids, jnp.int32 if token else jnp.float32)
        branches = branch_count(plan)
        if branches > 1:
            more["gates"] = make((b, self.n, self.heads, branches), jnp.float32)
        return operands, more


@dataclasses.dataclass(frozen=True)
class Trial:
    """What was measured.

    ``error``: the largest absolute difference from the reference over ``compared`` of ``shape.n`` queries,
    infinite where an output is not finite; ``largest``: the reference's largest absolute value there. Seconds
    are medians, of the forward pass; ``compile_seconds`` holds planning, tracing and compiling;
    ``dense_seconds`` is None where dense attention is not timed. ``computed``: (query, slot) pairs
    over all heads, ``full_tiles`` and ``partial_tiles`` are the plan's; of those that depend on run-time
    inputs or a choice, what is skipped is not known to it.
    """

    shape: Shape
    backend: str
    error: float
    largest: float
    compared: int
    compile_seconds: float
    seconds: float
    dense_seconds: float | None
    computed: int
    full_tiles: int
    partial_tiles: int

    @property
    def speedup(self) -> float | None:
        """Dense attention's time over this one's."""
        return None if self.dense_seconds is None else self.dense_seconds / self.seconds

    @property
    def computed_share(self) -> float:
        """Pairs computed, of those that dense attention computes."""
        return self.computed / (self.shape.heads * self.shape.n**2)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; an infinite error is None."""
        more = {"speedup": self.speedup, "computed_share": self.computed_share}
        return {**dataclasses.asdict(self), **more, "error": self.error if np.isfinite(self.error) else None}

    def __str__(self) -> str:
        s = self.shape
        rows = "all queries" if self.compared == s.n else f"{self.compared} of {s.n} queries"
        heads = f"{s.heads}" if s.heads == s.kv_heads else f"{s.heads} ({s.kv_heads} key)"
        if self.dense_seconds is None:
            dense = f"not timed: {_untimed(s)}"
        else:
            dense = f"{1000 * self.dense_seconds:.1f} ms, {self.speedup:.3g} times as long"
        lines = {
            "shape": f"n = {s.n}, batch {s.batch}, {heads} heads × {s.head_dim}, {s.dtype}",
            "backend": self.backend,
            "error": f"{self.error:.1e} from the reference, whose values reach {self.largest:.2f} ({rows})",
            "tiles": f"{self.full_tiles} full, {self.partial_tiles} partial",
            "planned": f"{self.computed} pairs, {self.computed_share:.2%} of dense attention's",
            "compile": f"{self.compile_seconds:.2f} s",
            "forward": f"{1000 * self.seconds:.1f} ms",
            "dense": dense,
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())


def trial(
    spec: Spec,
    shape: Shape,
    *,
    params: Mapping[str, int] | None = None,
    layer: int = 0,
    backend: str = "auto",
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    repeats: int = 5,
) -> Trial:
    """Run the spec on random operands (standard normal), forward. Raises SpecError."""
    import jax
    import jax.numpy as jnp

    from patterndsl.api import compile
    from patterndsl.backends.calling import on_host

    attention = compile(spec, params=params, layer=layer, backend=backend)
    plan = shape.plan(attention)
    rng = np.random.default_rng(seed)
    q, k, v = (jnp.asarray(rng.standard_normal(s, np.float32), shape.dtype) for s in shape.operands())
    given = on_host(spec.module.inputs, dict(inputs or {}))  # checked before JAX makes 32 bits of them
    extra: dict[str, Any] = {name: jnp.asarray(x) for name, x in given.items()}
    branches = branch_count(plan)
    if branches > 1:
        size = (shape.batch, shape.n, shape.heads, branches)
        extra["gates"] = jax.nn.softmax(jnp.asarray(rng.standard_normal(size, np.float32)))

    def run() -> jax.Array:
        out: jax.Array = attention(q, k, v, **extra)
        return out.block_until_ready()

    start = time.perf_counter()
    out = run()
    compile_seconds = time.perf_counter() - start
    seconds = _median(run, repeats)
    error, largest, compared = _compare(spec, shape, params, layer, out, (q, k, v), extra)
    stats = plan.stats()
    sizes = (shape.batch, shape.heads, shape.kv_heads, shape.head_dim, shape.head_dim)
    target = Shapes(shape.n, shape.n, *sizes, shape.dtype).target()
    return Trial(
        shape=shape,
        backend=attention.pick(plan, target).name,
        error=error,
        largest=largest,
        compared=compared,
        compile_seconds=compile_seconds,
        seconds=seconds,
        dense_seconds=None if _untimed(shape) else _dense_seconds(q, k, v, repeats),
        computed=stats.computed,
        full_tiles=stats.full_blocks,
        partial_tiles=stats.partial_blocks,
    )


def branch_count(plan: Plan) -> int:
    """How many softmaxes the spec mixes: 1 without `mix`."""
    return max(len(group.branches) for group in plan.groups)


def _median(run: Callable[[], Any], repeats: int) -> float:
    times: list[float] = []
    while len(times) < repeats and sum(times) < ENOUGH_SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _compare(
    spec: Spec,
    shape: Shape,
    params: Mapping[str, int] | None,
    layer: int,
    out: Any,
    operands: tuple[Any, Any, Any],
    extra: Mapping[str, Any],
) -> tuple[float, float, int]:
    """Largest difference from the reference, its largest value, and the number of queries compared."""
    from patterndsl.api import nodes_of
    from patterndsl.backends import reference
    from patterndsl.backends.calling import finish, prepare
    from patterndsl.backends.facts import facts_of

    (q, k, v), kinds = operands, spec.module.inputs
    gates = extra.get("gates")
    inputs = {name: x for name, x in extra.items() if name != "gates"}
    nodes = nodes_of(spec, params, layer, shape.n, shape.heads)
    whole = prepare(kinds, q, k, v, inputs=inputs).operands
    facts = facts_of((node for _, node in nodes), whole)  # of all queries: some choose together
    rows = max(1, min(shape.n, AT_ONCE // (shape.batch * shape.heads * shape.n)))
    starts = list(range(0, shape.n, rows))
    if shape.logits > ALL_ROWS:
        starts = sorted({int(s) for s in np.linspace(0, shape.n - rows, SAMPLED_BLOCKS)})
    error = largest = 0.0
    compared = 0
    for start in starts:
        part = slice(start, min(start + rows, shape.n))
        its_gates = None if gates is None else gates[:, part]
        call = prepare(kinds, q[:, part], k, v, q_offset=start, gates=its_gates, inputs=inputs)
        expected = np.asarray(finish(call, reference.run(nodes, call.operands, facts)), np.float32)
        found = np.asarray(out[:, part], np.float32)
        different = float(np.max(np.abs(found - expected))) if np.isfinite(found).all() else np.inf
        error, largest = max(error, different), max(largest, float(np.max(np.abs(expected))))
        compared += part.stop - part.start
    return error, largest, compared


def _untimed(shape: Shape) -> str:
    """Why dense attention of this shape is not timed, if it is not."""
    if shape.logits > DENSE_LOGITS:
        return f"its logits alone take {shape.logits * 4 / 2**30:.0f} GiB"
    if shape.dtype == "float16" and platform_in_use() == "cpu":
        return "JAX's own has no float16 on the CPU"
    return ""


def _dense_seconds(q: Any, k: Any, v: Any, repeats: int) -> float:
    """Time of `jax.nn.dot_product_attention` with a boolean mask [n, n], whose values do not matter to it."""
    import jax
    import jax.numpy as jnp

    mask = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))[None, None]
    dense = jax.jit(lambda q, k, v, mask: jax.nn.dot_product_attention(q, k, v, mask=mask))
    dense(q, k, v, mask).block_until_ready()
    return _median(lambda: dense(q, k, v, mask).block_until_ready(), repeats)
