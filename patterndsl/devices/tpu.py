"""TPUs: libtpu compiles for every generation, without one."""

from __future__ import annotations

import base64
import importlib.metadata
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patterndsl.devices import Device

PLATFORM = "tpu"
TOPOLOGIES = {
    "v4": "v4:2x2x1",
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
    "7x": "tpu7x:2x2x1",
}


def missing() -> str | None:
    """What to install, where the compiler is not there."""
    try:
        importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return "compiling for a TPU needs `pip install 'patterndsl[tpu-check]'`: there is no libtpu"
    return None


def environment(device: Device) -> dict[str, str]:
    """What the compiler's process is told, before JAX starts."""
    return {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # there is no cloud to ask
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def mesh(device: Device) -> Any:
    """A mesh of one such device."""
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    found = topologies.get_topology_desc(platform=PLATFORM, topology_name=TOPOLOGIES[device.chip])
    return Mesh(np.asarray(found.devices[:1]), ("device",), axis_types=(AxisType.Explicit,))


def kernel_text(module: Any) -> str | None:
    """The Mosaic kernels in a StableHLO module, as text; None where there is none."""
    from patterndsl.devices.stablehlo import custom_calls, parsed

    found = []
    for call in custom_calls(module, "tpu_custom_call"):
        config = json.loads(call.attributes["backend_config"].value)
        found.append(parsed(base64.b64decode(config["custom_call_config"]["body"]), module.context))
    return "\n".join(found) or None


def resources(compiled: Any, printed: str) -> dict[str, int]:
    """Floating-point operations and bytes moved, as a kernel's own estimate has them, and bytes of HBM beside
    operands and results."""
    costs = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    return {
        "FLOPs": int(costs.get("flops", 0)),
        "bytes accessed": int(costs.get("bytes accessed", 0)),
        "temporary bytes": int(getattr(memory, "temp_size_in_bytes", 0)),
    }
