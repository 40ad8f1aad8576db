"""`compile` and `reference`: from a spec to an attention function. JAX is imported when one is first
called."""

from __future__ import annotations

import copy
import dataclasses
import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall, UnknownBackend, UnsupportedByBackend
from patterndsl.ir import resolve
from patterndsl.ir.nodes import Heads, Module, Node
from patterndsl.ir.normal import walk
from patterndsl.ir.ranges import computed_inputs
from patterndsl.plan.cost import Workload
from patterndsl.spec import Spec, as_spec, check_positive
from patterndsl.targets import chip_of, left_to_xla, platform_in_use, priced_as, target_of, workload_of

if TYPE_CHECKING:
    from patterndsl.backends import Backend, Target, Unsupported
    from patterndsl.devices import Device
    from patterndsl.lengths import Bucketed
    from patterndsl.plan.build import Given
    from patterndsl.plan.plan import Plan

MOST_HEADS = 1024
MOST_TOLD = 32
"""Calls of different shapes that `Attention.explain` remembers, with their plans."""
BY_SPEED = ("cpu_native", "pallas_gpu", "pallas_tpu", "xla")
"""The backends that `auto` asks, the faster first. The CPU's must have been built."""


def compile(
    spec: Spec | str,
    *,
    params: Mapping[str, int] | None = None,
    layer: int = 0,
    backend: str = "auto",
    block_sizes: tuple[int, int] | None = None,
    mesh: Any = None,
    seq_axis: str | None = None,
) -> Attention:
    """An attention function that computes only what the spec keeps.

    ``params`` override the spec's, ``layer`` picks from `layers {…}`. ``backend``: ``auto``, or the name of
    one, which then runs or says why it cannot. ``block_sizes``: (queries, keys) in a tile, which the cost
    model chooses otherwise, as it does layouts and splits; what `autotune` stored goes before. Raises
    `SpecError`.
    """
    if mesh is not None or seq_axis is not None:
        reason = "attention over a mesh is not part of this version"
        raise SpecError(UnsupportedByBackend(backend="sharded", reason=reason, advice="leave `mesh` out"))
    if backend != "auto":
        _backend(backend)
    return Attention(as_spec(spec), params, layer, backend, block_sizes)


class Attention:
    """A compiled spec: call it on q, k, v. Works under jit, grad and vmap, for every length."""

    def __init__(
        self,
        spec: Spec,
        params: Mapping[str, int] | None,
        layer: int,
        backend: str,
        block_sizes: tuple[int, int] | None,
        given: Given | None = None,
    ) -> None:
        from patterndsl.passes import optimize

        self.spec, self.layer, self.backend, self.block_sizes = spec, layer, backend, _blocks(block_sizes)
        self.given = given  # the alternatives to run, where they are not to be chosen
        self.device: Device | None = None  # what it is lowered for, where that is not the one at hand
        self._traced: dict[tuple[int, int, Target], Plan] = {}
        if layer < 0:
            raise SpecError(BadCall(argument="layer", reason=f"layers count from 0, not {layer}"))
        module = resolve.inline(resolve.set_params(spec.module, params))
        self.module: Module = optimize(_replace(module, resolve.pick_layer(module.main, layer)))

    def __repr__(self) -> str:
        return f"Attention({self.module.main})"

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: all but the compiled function, which is made again when it is needed."""
        return {**{name: value for name, value in vars(self).items() if name != "_jitted"}, "_traced": {}}

    def __call__(
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        scale: Any = None,
        softcap: float | None = None,
        sinks: Any = None,
        alibi_slopes: Any = None,
        bias: Any = None,
        q_offset: Any = None,
        kv_lengths: Any = None,
        gates: Any = None,
        return_lse: bool = False,
        state: Any = None,
        **inputs: Any,
    ) -> Any:
        """Attention over the slots that the spec keeps.

        q [B, T, N, H], k [B, S, K, H], v [B, S, K, Hv] with N a multiple of K (or all without B). ``scale``:
        1/√H unless given. ``softcap`` c: c·tanh(logit/c), before all that is added. ``alibi_slopes`` [N]:
        −slope·|q − k| is added (a summary stands at the mean position of its tokens). ``bias`` [B or 1, N or
        1, T, S] is added (a summary gets the mean over its tokens). ``sinks`` [N]: one more logit in each
        denominator. ``q_offset``: the position of the first query, S − T unless given; an array makes it
        known only at run time, and no tile is then skipped for it. ``kv_lengths`` [B]: keys from there on do
        not exist. ``gates`` [B, T, N, branches]: for `mix`. ``inputs``: the spec's run-time inputs, integers
        [S] or [B, S]; centroids are floats [k, H], or [N, k, H] for each query head its own, and get no
        gradient.

        Returns [B, T, N, Hv] in q's dtype, and with ``return_lse`` the log-sum-exp [B, T, N] in float32. A
        row without keys is 0, its log-sum-exp −inf, its gradients 0. Raises `SpecError` where arguments do
        not fit. With ``state`` (see `initial_state`), q, k and v are the next T tokens of a sequence, and the
        result is a pair of this and the next state.
        """
        from patterndsl.backends.calling import check_computed, check_softcap, on_host

        check_softcap(softcap)
        static: dict[str, Any] = {"return_lse": bool(return_lse)}
        static["softcap"] = None if softcap is None else float(softcap)
        if isinstance(scale, numbers.Real) and not isinstance(scale, bool):
            scale = float(scale)
        if isinstance(q_offset, numbers.Integral) and not isinstance(q_offset, bool):
            q_offset = int(q_offset)
        arrays: dict[str, Any] = {"sinks": sinks, "alibi_slopes": alibi_slopes, "bias": bias}
        arrays |= {"kv_lengths": kv_lengths, "gates": gates}
        for name, value in (("scale", scale), ("q_offset", q_offset)):
            plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            (static if plain else arrays)[name] = value
        arrays = {name: value for name, value in arrays.items() if value is not None}
        inputs = on_host(self.spec.module.inputs, inputs)
        check_computed(self._computed & inputs.keys(), inputs)
        return self._jitted(q, k, v, state, arrays, inputs, tuple(sorted(static.items())))

    def on(self, device: Device) -> Attention:
        """The same function, lowered for a device that is not at hand: it can be traced, and run only where
        the device is interpreted."""
        made = copy.copy(self)
        made.device = device
        return made

    @functools.cached_property
    def _computed(self) -> frozenset[str]:
        return computed_inputs(self.module.main)

    @functools.cached_property
    def _jitted(self) -> Callable[..., Any]:
        import jax

        def run(q: Any, k: Any, v: Any, state: Any, arrays: Any, inputs: Any, static: Any) -> Any:
            arguments = {"inputs": inputs, **arrays, **dict(static)}
            if state is None:
                return self._run(q, k, v, **arguments)
            from patterndsl.backends.state import step

            return step(self, q, k, v, state, arguments)

        return jax.jit(run, static_argnums=6)

    def _run(self, q: Any, k: Any, v: Any, **arguments: Any) -> Any:
        from patterndsl.backends.calling import finish, prepare

        call = prepare(self.spec.module.inputs, q, k, v, **arguments)
        x = call.operands
        n, n_q = call.lengths
        target = target_of(x, self.device)
        offset = x.q_offset if isinstance(x.q_offset, int) else None
        plan = self._plan(n, n_q, offset, x.q.shape[2], workload_of(target, self.backend))
        self._traced.pop((n, n_q, target), None)
        self._traced[n, n_q, target] = plan
        if len(self._traced) > MOST_TOLD:
            self._traced.pop(next(iter(self._traced)))
        kernel = self.pick(plan, target).lower(plan, target)
        return finish(call, kernel(x))

    def plan(
        self,
        n: int,
        n_q: int | None = None,
        *,
        num_heads: int | None = None,
        q_offset: int | None = None,
        workload: Workload | None = None,
    ) -> Plan:
        """How the spec runs at n keys and n_q queries (n, unless given). ``num_heads``: as many as the spec
        names, unless given. ``workload``: the operands for which tiles, layouts and splits are chosen; one
        sequence in float32, with heads of 64 and a key head for each, on JAX's device if JAX is in use and
        else on the CPU, unless given."""
        n_q = n if n_q is None else n_q
        check_positive("n", n)
        check_positive("n_q", n_q)
        heads = num_heads if num_heads is not None else named_heads(self.module.main)
        check_heads(heads)
        if workload is None:
            platform = platform_in_use(self.device)
            backend = priced_as(self.backend, platform, chip=chip_of(self.device))
            workload = Workload(heads=heads, kv_heads=heads, platform=platform, backend=backend)
        return self._plan(n, n_q, n - n_q if q_offset is None else q_offset, heads, workload)

    def initial_state(
        self,
        *,
        batch: int | None = None,
        num_kv_heads: int,
        head_dim: int,
        v_head_dim: int | None = None,
        num_heads: int | None = None,
        dtype: Any = "float32",
    ) -> Any:
        """The state before the first token of a sequence that is computed piece by piece, in memory that does
        not grow: ``out, state = attention(q, k, v, state=state)`` with the next T tokens, of any T, gives
        what one call on the whole sequence would.

        The state is a pytree of fixed shapes, so that it can be carried by `jax.lax.scan`; gradients flow
        through it, unless stopped by `jax.lax.stop_gradient(state)`. All sequences of a batch are equally
        long (`jax.vmap` for others). ``num_heads``: of queries, where the spec differs by head. Raises
        `SpecError` where no state of bounded size will do (E506).
        """
        from patterndsl.backends.state import empty
        from patterndsl.horizon import horizon

        for name, value in (("batch", batch), ("num_kv_heads", num_kv_heads), ("head_dim", head_dim)):
            if value is not None:
                check_positive(name, value)
        found = horizon(self.module, num_heads or max(num_kv_heads, named_heads(self.module.main)))
        inputs = self.spec.module.inputs  # centroids are no part of what a state can serve
        return empty(found, batch, num_kv_heads, head_dim, v_head_dim or head_dim, dtype, inputs)

    def bucketed(self, lengths: Sequence[int] | None = None) -> Bucketed:
        """The same function, compiled for few lengths: keys and queries are padded to the next of
        ``lengths`` (the powers of two from 256, unless given) and `kv_lengths` tells them apart.

        Answers are those of this function. A call whose pattern would be another at the padded length
        (``n`` in a size, tokens counted from the end) is refused with a `SpecError`.
        """
        from patterndsl.lengths import Bucketed

        return Bucketed(self, lengths)

    def _plan(self, n: int, n_q: int, q_offset: int | None, num_heads: int, workload: Workload) -> Plan:
        nodes = head_nodes(self.module, n, num_heads)
        plan = self._plan_for(nodes, n, n_q, q_offset, num_heads, workload)
        if self.backend == "auto" and left_to_xla(plan, workload):
            workload = dataclasses.replace(workload, backend="xla")  # which runs it
            plan = self._plan_for(nodes, n, n_q, q_offset, num_heads, workload)
        return plan

    def _plan_for(
        self,
        nodes: tuple[tuple[tuple[int, ...], Node], ...],
        n: int,
        n_q: int,
        q_offset: int | None,
        num_heads: int,
        workload: Workload,
    ) -> Plan:
        """The plan that is chosen by the rates of the workload's backend."""
        from patterndsl.plan.build import build_plan
        from patterndsl.tuning import stored

        given, source = self.given, "given"
        if given is None and self.block_sizes is None and q_offset is not None:
            given, source = stored(nodes, (n, n_q, q_offset), workload)
        return build_plan(
            nodes,
            n=n,
            n_q=n_q,
            q_offset=q_offset,
            num_heads=num_heads,
            block_sizes=self.block_sizes,
            workload=workload,
            given=given,
            source=source,
        )

    def pick(self, plan: Plan, target: Target) -> Backend:
        """The backend that runs the plan on the target. Raises SpecError where a named one cannot."""
        *_, (name, refusal) = self.asked(plan, target)
        if refusal is not None:
            raise SpecError(UnsupportedByBackend(backend=name, reason=refusal.reason, advice=refusal.advice))
        return _backend(name)

    def asked(self, plan: Plan, target: Target) -> list[tuple[str, Unsupported | None]]:
        """The backends that are asked to run the plan on the target, and what they answer; the last one does,
        unless none does."""
        found: list[tuple[str, Unsupported | None]] = []
        for name in BY_SPEED if self.backend == "auto" else (self.backend,):
            found.append((name, _backend(name).supports(plan, target)))
            if found[-1][1] is None:
                break
        return found

    def explain(self) -> str:
        """Of the last calls, by their shapes: which backend ran them, why faster ones did not, and how it is
        planned. What JAX has compiled already is not planned again, and told only once."""
        lines = []
        for (n, n_q, target), plan in self._traced.items():
            q = f"[{target.batch}, {n_q}, {target.num_heads}, {target.head_dim}]"
            k, v = (
                f"[{target.batch}, {n}, {target.num_kv_heads}, {size}]"
                for size in (target.head_dim, target.v_head_dim)
            )
            lines += [
                f"q {q}, k {k}, v {v}, {target.dtype}",
                self.explain_choice(plan, target),
                plan.explain(),
            ]
        return "\n".join(lines) or "not called yet: `plan(n).explain()` says what is computed at n tokens"

    def explain_choice(self, plan: Plan, target: Target) -> str:
        """Which backend runs the plan on the target, and why those before it do not."""
        asked = self.asked(plan, target)
        device = target.platform if target.chip is None else f"{target.platform} ({target.chip})"
        ran = [f"run by {name} on {device}" for name, refusal in asked if refusal is None]
        lines = [f"  not by {name}: {why.reason}" for name, why in asked if why is not None]
        return "\n".join([*(ran or [f"run by no backend on {device}"]), *lines])


def reference(
    spec: Spec | str,
    q: Any,
    k: Any,
    v: Any,
    *,
    params: Mapping[str, int] | None = None,
    layer: int = 0,
    scale: Any = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    bias: Any = None,
    q_offset: Any = None,
    kv_lengths: Any = None,
    gates: Any = None,
    return_lse: bool = False,
    **inputs: Any,
) -> Any:
    """What `compile(spec)(q, k, v, …)` must answer: dense, float32 (float64 for float64 operands), no pass
    and no plan in between. Arguments and results are those of `Attention.__call__`. Memory is T × S."""
    from patterndsl.backends.calling import check_computed, finish, on_host, prepare
    from patterndsl.backends.reference import run

    spec = as_spec(spec)
    call = prepare(
        spec.module.inputs, q, k, v, scale=scale, softcap=softcap, sinks=sinks, alibi_slopes=alibi_slopes,
        bias=bias, q_offset=q_offset, kv_lengths=kv_lengths, gates=gates, return_lse=return_lse,
        inputs=inputs,
    )  # fmt: skip
    nodes = nodes_of(spec, params, layer, call.lengths[0], call.operands.q.shape[2])
    computed = frozenset[str]().union(*(computed_inputs(node) for _, node in nodes))
    check_computed(computed, on_host(spec.module.inputs, inputs) if computed else {})
    return finish(call, run(nodes, call.operands))


def nodes_of(
    spec: Spec, params: Mapping[str, int] | None, layer: int, n: int, num_heads: int
) -> tuple[tuple[tuple[int, ...], Node], ...]:
    """The heads of a layer, grouped by their pattern at n keys, as the spec has it: no pass has seen it."""
    module = resolve.inline(resolve.set_params(spec.module, params))
    return head_nodes(_replace(module, resolve.pick_layer(module.main, layer)), n, num_heads)


def head_nodes(module: Module, n: int, num_heads: int) -> tuple[tuple[tuple[int, ...], Node], ...]:
    """The heads, grouped by the pattern that they come out with at n keys."""
    if not differs_by_head(module.main):
        return ((tuple(range(num_heads)), resolve.at_length(module.main, n, module.spans)),)
    found: dict[Node, list[int]] = {}
    for head in range(num_heads):
        node = resolve.pick_head(module.main, head, num_heads)
        found.setdefault(resolve.at_length(node, n, module.spans), []).append(head)
    return tuple((tuple(heads), node) for node, heads in found.items())


def differs_by_head(node: Node) -> bool:
    """Whether heads may have different patterns."""
    if any(isinstance(p, Heads) for p in walk(node)):
        return True
    return bool(resolve.names(node) & {"h", "num_heads"})


def check_heads(num_heads: int) -> None:
    """Raise SpecError where there are no heads, or too many to be looked at one by one."""
    check_positive("num_heads", num_heads)
    if num_heads > MOST_HEADS:
        reason = f"{num_heads:,} heads, of which at most {MOST_HEADS:,} are looked at"
        raise SpecError(BadCall(argument="num_heads", reason=reason, advice="pass a smaller `num_heads`"))


def named_heads(node: Node) -> int:
    """How many query heads the spec names (1 where it names none)."""
    stops = [r.stop or r.start + 1 for p in walk(node) if isinstance(p, Heads) for r in p.ranges]
    return max(stops, default=1)


def _backend(name: str) -> Backend:
    """The backend of this name. Raises SpecError where there is none."""
    from patterndsl.backends import backends

    known = backends()
    if name not in known:
        raise SpecError(UnknownBackend(name=name, candidates=("auto", *known)))
    return known[name]


def _replace(module: Module, main: Node) -> Module:
    return Module(main, module.params, module.inputs, module.functions, module.spans)


def _blocks(block_sizes: tuple[int, int] | None) -> tuple[int, int] | None:
    if block_sizes is None:
        return None
    sizes = tuple(block_sizes) if isinstance(block_sizes, (tuple, list)) else ()
    if len(sizes) != 2 or not all(isinstance(b, int) and b > 0 and b is not True for b in sizes):
        raise SpecError(
            BadCall(argument="block_sizes", reason=f"two positive numbers are needed, not {block_sizes!r}")
        )
    return sizes
