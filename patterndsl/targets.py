"""What an attention function is lowered for: a device, at hand or not, and whose kernels are expected."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from patterndsl.plan.cost import Workload

if TYPE_CHECKING:
    from patterndsl.backends import Target
    from patterndsl.devices import Device
    from patterndsl.plan.plan import Plan


def workload_of(target: Target, backend: str) -> Workload:
    """The operands, as the cost model sees them. A batch of any size, as in an export, counts as one."""
    import jax.numpy as jnp

    return Workload(
        target.batch if isinstance(target.batch, int) else 1,
        target.num_heads,
        target.num_kv_heads,
        target.head_dim,
        target.v_head_dim,
        jnp.dtype(target.dtype).itemsize,
        target.platform,
        priced_as(backend, target.platform, target.dtype, target.chip),
    )


def priced_as(name: str, platform: str, dtype: str = "float32", chip: str | None = None) -> str:
    """Whose rates a plan is chosen with: the backend that ``auto`` picks, as far as that is known before."""
    if name != "auto":
        return name
    from patterndsl.backends.native_library import DTYPES, built

    if platform == "gpu":
        from patterndsl.backends import pallas_gpu

        ours = dtype in pallas_gpu.DTYPES and pallas_gpu.unavailable(platform, chip) is None
        return "pallas_gpu" if ours else "xla"
    if platform == "tpu":
        from patterndsl.backends import pallas_tpu

        ours = dtype in pallas_tpu.DTYPES and pallas_tpu.unavailable(platform, chip) is None
        return "pallas_tpu" if ours else "xla"
    return "cpu_native" if platform == "cpu" and dtype in DTYPES and built() else "xla"


def left_to_xla(plan: Plan, workload: Workload) -> bool:
    """Whether the backend that the plan was made for is known not to run it."""
    if workload.backend == "pallas_tpu":
        from patterndsl.backends import pallas_tpu

        sizes = workload.head_dim, workload.v_head_dim
        heads = workload.heads, workload.kv_heads
        return not pallas_tpu.fits(*sizes) or pallas_tpu.refused(plan, *heads) is not None
    if workload.backend != "pallas_gpu":
        return workload.backend == "cpu_native" and bool(plan.facts_by_tiles)
    from patterndsl.backends import pallas_gpu

    return not pallas_gpu.fits(workload.head_dim, workload.v_head_dim) or pallas_gpu.refused(plan) is not None


def platform_in_use(device: Device | None = None) -> str:
    """JAX's device where JAX is in use, unless one is given: a plan alone is no reason to import it."""
    if device is not None:
        return device.platform
    return str(sys.modules["jax"].default_backend()) if "jax" in sys.modules else "cpu"


def chip_of(device: Device | None) -> str | None:
    """What a device that is not at hand is called; None for the one at hand."""
    return None if device is None else device.chip


def target_of(x: Any, device: Device | None) -> Target:
    """What `Operands` are lowered for."""
    import jax

    from patterndsl.backends import Target

    return Target(
        platform=jax.default_backend() if device is None else device.platform,
        dtype=x.q.dtype.name,
        batch=x.q.shape[0],
        num_heads=x.q.shape[2],
        num_kv_heads=x.k.shape[2],
        head_dim=x.q.shape[3],
        v_head_dim=x.v.shape[3],
        has_bias=x.bias is not None,
        has_slopes=x.alibi_slopes is not None,
        interpret=device is not None and device.interpret,
        chip=chip_of(device),
    )
