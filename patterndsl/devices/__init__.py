"""Devices that are not at hand: their compilers run on any machine, and say what a kernel takes of them.

`compile_kernels` hands the kernels that attention functions launch to the device's own compiler (ptxas for
NVIDIA's GPUs, libtpu for TPUs), in a process of its own: a compiler may abort or hang, and keeps state that
must not be carried from one device to another.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.trial import Shape

MOST_SECONDS = 120
"""For a kernel, unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class Device:
    """``name`` as on the command line, ``platform`` as JAX calls it, ``chip`` as in `Target.chip`.
    ``interpret``: the kernels are run by Pallas' interpreter, wherever JAX runs, and no compiler knows it."""

    name: str
    platform: str
    chip: str
    interpret: bool = False


DEVICES = {
    device.name: device
    for device in (
        Device("cuda-sm90", "gpu", "sm90"),
        *(Device(f"tpu-{chip}", "tpu", chip) for chip in ("v4", "v5e", "v5p", "v6e", "7x")),
    )
}
INTERPRETED_TPU = Device("tpu-interpreted", "tpu", "interpreted", interpret=True)
"""For tests: `Attention.on(INTERPRETED_TPU)` runs a TPU's kernels, slowly, on a machine without one."""


class Toolchain(Protocol):
    """The compiler of a platform: a module here (`cuda`, `tpu`)."""

    PLATFORM: str
    """What JAX lowers for."""

    def missing(self) -> str | None:
        """What to install, where the compiler is not there."""

    def environment(self, device: Device) -> dict[str, str]:
        """What the compiler's process is told, before JAX starts."""

    def mesh(self, device: Device) -> Any:
        """A mesh of one such device."""

    def kernel_text(self, module: Any) -> str | None:
        """The Mosaic kernels in a StableHLO module, as text; None where there is none."""

    def resources(self, compiled: Any, printed: str) -> dict[str, int]:
        """What the compiler said, and printed, of a kernel."""


def toolchain(device: Device) -> Toolchain:
    """The device's compiler. It need not be installed."""
    module: Any = importlib.import_module(f"{__name__}.{'cuda' if device.platform == 'gpu' else 'tpu'}")
    found: Toolchain = module
    return found


@dataclasses.dataclass(frozen=True)
class Case:
    """A call whose kernels are compiled: operands of a ``shape``, ``given`` arguments (`softcap`), and
    further ``arrays`` by their names, shapes and dtypes (`kv_lengths`)."""

    attention: Attention
    shape: Shape
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A kernel, or why it was not compiled (``error``). ``text``: what the compiler received."""

    name: str
    text: str = ""
    resources: Mapping[str, int] = dataclasses.field(default_factory=dict)
    error: str | None = None


class DeviceError(Exception):
    """The compiler's process did not come as far as the kernels."""


def compile_kernels(
    cases: Sequence[Case], device: Device, *, only_lower: bool = False, seconds: int = MOST_SECONDS
) -> list[list[Compiled]]:
    """For each case the kernels of its forward and backward pass, each with ``seconds`` of time.
    ``only_lower``: up to what the compiler would receive. Raises DeviceError, also where the compiler is not
    installed."""
    tools = toolchain(device)
    what = tools.missing()
    if what is not None:
        raise DeviceError(what)
    found: list[dict[str, Compiled]] = [{} for _ in cases]
    environment = {**os.environ, **tools.environment(device)}
    while True:
        done = [list(kernels) for kernels in found]
        work = pickle.dumps((list(cases), device, only_lower, seconds, done))
        begun = _run(work, environment, found, seconds)
        if begun is None:
            return [list(kernels.values()) for kernels in found]
        case, kernel, why = begun
        found[case][kernel] = Compiled(kernel, error=why)


def _run(
    work: bytes, environment: Mapping[str, str], found: list[dict[str, Compiled]], seconds: int
) -> tuple[int, str, str] | None:
    """Fill in what a process has compiled; the case, the kernel and the reason at which it ended early."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results")
        command = [sys.executable, "-m", f"{__name__}.worker", str(path)]
        ended = subprocess.run(command, input=work, capture_output=True, env=environment, check=False)
        lines = path.read_text().splitlines() if path.exists() else []
    begun: tuple[int, str] | None = None
    for line in lines:
        result = json.loads(line)
        case, kernel = result.pop("case"), result["name"]
        begun = (case, kernel) if len(result) == 1 else None
        if begun is None:
            found[case][kernel] = Compiled(**result)
    if ended.returncode == 0:
        return None
    told = (ended.stderr or ended.stdout).decode(errors="replace").strip()[-2000:]
    if ended.returncode == -signal.SIGALRM:
        told = f"it took more than {seconds} seconds"
    if begun is None:
        raise DeviceError(told or f"the compiler's process ended with {ended.returncode}")
    return *begun, told or f"the compiler ended with {ended.returncode}"
