"""NVIDIA's GPUs: XLA for the shape of a kernel's launch, Mosaic and ptxas for its code.

The figures of a device are typed from public ones; the compiler takes its limits from them.
"""

from __future__ import annotations

import collections
import importlib.metadata
import importlib.util
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patterndsl.devices import Device

PLATFORM = "cuda"
PACKAGES = ("jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm", "absl-py")
PACKAGES_FOR_CODE = ("nvidia-cuda-nvdisasm",)
OF_JAX = PACKAGES[:2]  # of the same version as JAX

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
FIGURES = {"sm90": H100}

TENSOR_CORES = ("HGMMA", "HMMA", "IGMMA", "QGMMA")


def missing() -> str | None:
    """What to install, where the compiler is not there."""
    try:
        versions = {name: importlib.metadata.version(name) for name in (*PACKAGES, *PACKAGES_FOR_CODE)}
    except importlib.metadata.PackageNotFoundError as error:
        return f"compiling for a GPU needs `pip install 'patterndsl[gpu-check]'`: there is no {error.name}"
    jax = importlib.metadata.version("jax")
    wrong = [f"{name}=={jax}" for name in OF_JAX if versions[name] != jax]
    return f"compiling for a GPU with JAX {jax} needs `pip install {' '.join(wrong)}`" if wrong else None


def environment(device: Device) -> dict[str, str]:
    """What the compiler's process is told, before JAX starts."""
    shown = dict.fromkeys((f"MOSAIC_GPU_DUMP_{x}" for x in ("RESOURCES", "PTXAS", "SASS")), "1")
    return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1", **shown}


def mesh(device: Device) -> Any:
    """A mesh of one such device."""
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    found = topologies.get_topology_desc(
        platform=PLATFORM, target_config=FIGURES[device.chip], topology="1x1x1"
    )
    return Mesh(np.asarray(found.devices), ("device",), axis_types=(AxisType.Explicit,))


def kernel_text(module: Any) -> str | None:
    """The Mosaic kernels in a StableHLO module, as text; None where there is none."""
    from patterndsl.devices.stablehlo import custom_calls, parsed

    found = []
    for call in custom_calls(module, "mosaic_gpu"):
        config = call.attributes["mhlo.backend_config"]
        found.append(parsed(config["module"].value_bytes, module.context))
    return "\n".join(found) or None


def resources(compiled: Any, printed: str) -> dict[str, int]:
    """Registers a thread at the launch, bytes of shared memory and of spills, and instructions. Raises
    ValueError where the compilers said nothing."""

    def number(pattern: str) -> int:
        return sum(int(x) for x in re.findall(pattern, printed))

    instructions = collections.Counter(
        name.split(".")[0]
        for name in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", printed)
    )
    if not instructions or "Used" not in printed:
        raise ValueError(f"neither registers nor instructions are told in {printed[:1000]!r}")
    told = "smem_scratch_bytes" in printed  # by JAX 0.11 and later
    shared = {"shared memory": number(r"smem_scratch_bytes=(\d+)")} if told else {}
    return {
        "registers": number(r"Used (\d+) registers"),
        **shared,
        "spill stores": number(r"stack frame, (\d+) bytes spill stores"),
        "spill loads": number(r"stack frame, \d+ bytes spill stores, (\d+) bytes spill loads"),
        "instructions": instructions.total(),
        "tensor-core instructions": sum(instructions[name] for name in TENSOR_CORES),
    }
