"""Where the library of the native CPU backend is, or would be.

Apart from `cpu_native`, so that a plan can be priced for it without importing JAX: only its version is asked.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import pathlib
import platform

from patterndsl import cache

SOURCES = pathlib.Path(__file__).parent / "cpu_native" / "src"
DTYPES = ("float32", "bfloat16")
"""That it computes in."""
FLAGS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fwrapv"),
)
INSTRUCTION_SETS = {  # the flags of each, and what the processor must have
    "avx512": (("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"),
               {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma"}),
    "avx2": (("-mavx2", "-mfma"), {"avx2", "fma"}),
    "generic": ((), set()),
}  # fmt: skip


@functools.cache
def instruction_set() -> str:
    """The widest one for which there is code and that this processor has."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return next(name for name, (_, needed) in INSTRUCTION_SETS.items() if needed <= set(flags))


def flags(chosen: str | None = None) -> tuple[str, ...]:
    """The compiler's flags for an instruction set, this processor's unless named."""
    return (*FLAGS, *INSTRUCTION_SETS[chosen or instruction_set()][0])


@functools.cache
def _sources_hash() -> str:
    found = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def library() -> pathlib.Path:
    """Where the library for this machine and this version of JAX is, or would be."""
    parts = (
        _sources_hash(),
        *flags(),
        platform.system(),
        platform.machine(),
        importlib.metadata.version("jax"),
        importlib.metadata.version("jaxlib"),
    )
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache.folder() / "cpu_native" / f"{name}.so"


def built() -> bool:
    """Whether it was compiled here, for the JAX that is installed."""
    try:
        return library().exists()
    except (importlib.metadata.PackageNotFoundError, RuntimeError):  # no JAX, or no home for a cache
        return False
