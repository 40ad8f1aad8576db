"""Compiling the kernel with the system's C++ compiler, and finding what was compiled.

The library lies in a cache of the user's, under a name that is a hash of the sources, the flags, the
instruction set and JAX's version: after any of them changes it counts as not built.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from patterndsl import cache

SOURCES = pathlib.Path(__file__).parent / "src"
UNITS = ("forward.cc", "backward.cc", "handler.cc")
COMMAND = "python -m patterndsl.backends.cpu_native build"
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


class BuildError(Exception):
    """The kernel could not be compiled; the text says why."""


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
    import jax

    parts = (
        _sources_hash(),
        *flags(),
        platform.system(),
        platform.machine(),
        jax.__version__,
        importlib.metadata.version("jaxlib"),
    )
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache.folder() / "cpu_native" / f"{name}.so"


def compiler() -> str | None:
    """The C++ compiler: ``$CXX``, else the first of c++, g++ and clang++ that there is."""
    named = os.environ.get("CXX")
    return named or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)


def build(to: pathlib.Path | None = None, extra: tuple[str, ...] = ()) -> pathlib.Path:
    """Compile the library, into the cache unless told where. Raises `BuildError`."""
    import jax

    to = to or library()
    command = compiler()
    if command is None:
        raise BuildError("no C++ compiler: install g++ or clang++, or name one in CXX")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        made = pathlib.Path(folder) / to.name
        units = [str(SOURCES / unit) for unit in UNITS]
        line = [
            *command.split(),
            *flags(),
            *extra,
            "-isystem",
            jax.ffi.include_dir(),
            *units,
            "-o",
            str(made),
        ]
        try:
            result = subprocess.run(line, capture_output=True, text=True, check=False)
        except OSError as error:
            raise BuildError(f"{command}: {error.strerror}") from None
        if result.returncode:
            raise BuildError(f"{' '.join(line)}\n{result.stderr.strip()}")
        os.replace(made, to)  # whole or not at all, also for a process that looks meanwhile
    return to


def load() -> str | None:
    """Make the library's functions known to JAX, once; why that cannot be, or None."""
    path = library()
    if path in _LOADED:
        return None
    if not path.exists():
        return "it has not been built here"
    try:
        opened = ctypes.CDLL(str(path))
    except OSError as error:
        return f"its library cannot be loaded: {error}"
    register(opened, path.stem)
    _LOADED[path] = opened
    return None


_LOADED: dict[pathlib.Path, ctypes.CDLL] = {}


def register(opened: ctypes.CDLL, suffix: str) -> None:
    """Its functions as custom calls, named after the library, so that two may live in one process."""
    import jax

    pycapsule: Callable[[object], object] = jax.ffi.pycapsule
    for name in ("forward", "backward"):
        capsule = pycapsule(getattr(opened, f"patterndsl_{name}"))
        jax.ffi.register_ffi_target(f"patterndsl_{name}_{suffix}", capsule, platform="cpu")
