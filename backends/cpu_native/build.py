"""Compiling the kernel with the system's C++ compiler, and finding what was compiled.

The library lies in a cache of the user's, under a name that is a hash of the sources, the flags, the
instruction set and JAX's version: after any of them changes it counts as not built.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from patterndsl.backends.native_library import SOURCES, flags
from patterndsl.backends.native_library import instruction_set as instruction_set
from patterndsl.backends.native_library import library as library

UNITS = ("forward.cc", "backward.cc", "choose.cc", "handler.cc")
COMMAND = "python -m patterndsl.backends.cpu_native build"


class BuildError(Exception):
    """The kernel could not be compiled; the text says why."""


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
    for name in ("forward", "backward", "largest", "signs"):
        capsule = pycapsule(getattr(opened, f"patterndsl_{name}"))
        jax.ffi.register_ffi_target(f"patterndsl_{name}_{suffix}", capsule, platform="cpu")
