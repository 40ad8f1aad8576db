"""An attention function measured on random operands."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.plan.cost import Workload

LONGEST = 1.0  # seconds after which a call is not repeated


@dataclasses.dataclass(frozen=True)
class Shapes:
    """q [batch, n_q, heads, head_dim], k and v [batch, n, kv_heads, head_dim or v_head_dim]."""

    n: int
    n_q: int
    batch: int = 1
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 64
    v_head_dim: int = 64
    dtype: str = "float32"

    def workload(self, backend: str) -> Workload:
        """The operands as the cost model sees them."""
        from patterndsl.targets import workload_of

        return workload_of(self.target(), backend)

    def target(self) -> Any:
        import jax

        from patterndsl.backends import Target

        return Target(
            platform=jax.default_backend(),
            dtype=self.dtype,
            batch=self.batch,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            v_head_dim=self.v_head_dim,
        )


def operands(shapes: Shapes, branches: int = 1, seed: int = 0) -> tuple[tuple[Any, Any, Any], dict[str, Any]]:
    """q, k and v, standard normal, and gates where there are several ``branches``."""
    import jax
    import jax.numpy as jnp

    s, rng = shapes, np.random.default_rng(seed)
    sizes = [(s.n_q, s.heads, s.head_dim), (s.n, s.kv_heads, s.head_dim), (s.n, s.kv_heads, s.v_head_dim)]
    q, k, v = (jnp.asarray(rng.standard_normal((s.batch, *x), np.float32), s.dtype) for x in sizes)
    if branches == 1:
        return (q, k, v), {}
    gates = rng.standard_normal((s.batch, s.n_q, s.heads, branches), np.float32)
    return (q, k, v), {"gates": jax.nn.softmax(jnp.asarray(gates))}


def measure(
    attention: Attention,
    given: tuple[Any, Any, Any],
    more: Mapping[str, Any],
    *,
    backward: bool = False,
    repeats: int = 5,
) -> float:
    """Seconds of the fastest of some calls, as other work on the machine only adds to a time; forward, or
    with ``backward``. Compilation is not counted."""
    return fastest(ready(attention, given, more, backward=backward), repeats)


def ready(
    attention: Attention, given: tuple[Any, Any, Any], more: Mapping[str, Any], *, backward: bool = False
) -> Callable[[], Any]:
    """A call of the function that waits for the result, compiled already."""
    import jax

    wait: Any = jax.block_until_ready

    def forward(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, **more)

    def loss(q: Any, k: Any, v: Any) -> Any:
        return forward(q, k, v).sum()

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2)) if backward else forward)
    wait(run(*given))
    return lambda: wait(run(*given))


def fastest(call: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds of the fastest of so many calls, of fewer where they are slow."""
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < LONGEST):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
