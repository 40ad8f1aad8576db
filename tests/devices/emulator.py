"""Mosaic GPU's part of Pallas in Python: the GPU kernels run, and are checked, on a machine without a GPU.

Each warpgroup is a thread, which waits at the kernel's own barriers. What the hardware would let pass is an
error here: a slice beyond an array, scratch that is read before it is written (it is NaN), a barrier that
comes round twice before somebody has waited for it, one at which all wait (nothing else ends the test).
Tensor cores multiply at once and in float32; layouts and registers are `tests.devices.test_cuda`'s.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from patterndsl.backends import pallas_gpu
from patterndsl.backends.pallas_gpu import backward, forward, mosaic, pipeline

MODULES = (forward, backward, pipeline, mosaic)
PATIENCE = 60  # seconds at a barrier
HERE = threading.local()  # of a warpgroup: the program's indices by their names, and others' errors


class Ref:
    """A window on a NumPy array."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def at(self) -> Any:
        return _At(self.array)

    def __getitem__(self, index: Any) -> Any:
        return jnp.asarray(self.array[_index(self.array.shape, index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        assert np.shape(value) == self.array[_index(self.array.shape, index)].shape
        self.array[_index(self.array.shape, index)] = np.asarray(value)

    def transpose(self, order: tuple[int, ...]) -> Ref:
        return Ref(self.array.transpose(order))


class _At:
    def __init__(self, array: Any) -> None:
        self.array = array

    def __getitem__(self, index: Any) -> Any:
        found = self.array[_index(self.array.shape, index)]
        return found if isinstance(found, Barrier) else Ref(found)


def _index(shape: tuple[int, ...], index: Any) -> Any:
    """As NumPy takes it, checked against the shape."""
    if index is ...:
        return index
    found = []
    for size, i in zip(shape, index if isinstance(index, tuple) else (index,), strict=False):
        if isinstance(i, slice):
            assert 0 <= i.start <= i.stop <= size, f"{i} of {size}"
            found.append(i)
        else:
            assert 0 <= int(i) < size, f"{int(i)} of {size}"
            found.append(int(i))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Shared memory, or an accumulator."""

    shape: tuple[int, ...]
    dtype: Any
    transforms: Any = ()

    def made(self) -> Ref:
        return Ref(np.full(self.shape, np.nan, np.dtype(self.dtype)))


@dataclasses.dataclass(frozen=True)
class Barriers:
    """Barriers to be made."""

    num_arrivals: int = 1
    num_barriers: int = 1

    def made(self) -> Ref | Barrier:
        each = np.array([Barrier(self.num_arrivals) for _ in range(self.num_barriers)], object)
        return Ref(each) if self.num_barriers > 1 else each[0]


class Barrier:
    """Opens once for every so many arrivals; who waits for the n-th time waits until it opened n times."""

    def __init__(self, arrivals: int) -> None:
        self.arrivals, self.arrived, self.opened = arrivals, 0, 0
        self.changed = threading.Condition()
        self.waits: dict[int, int] = {}

    @property
    def at(self) -> Any:
        return _At(np.array([self], object))

    def arrive(self) -> None:
        with self.changed:
            self.arrived += 1
            if self.arrived == self.arrivals:
                self.arrived, self.opened = 0, self.opened + 1
                late = [who for who, times in self.waits.items() if times < self.opened - 1]
                assert not late, "opened twice before it was waited for"
                self.changed.notify_all()

    def wait(self) -> None:
        who = threading.get_ident()
        with self.changed:
            self.waits[who] = self.waits.get(who, 0) + 1
            for _ in range(10 * PATIENCE):
                if self.changed.wait_for(lambda: self.opened >= self.waits[who], 0.1):
                    return
                if HERE.others_failed:
                    break
            raise AssertionError("waited for what does not come")


def _load(ref: Ref, *, idx: Any = None, layout: Any = None, optimized: bool = True) -> jax.Array:
    return jnp.asarray(np.array(ref.array))


def _wgmma(into: Ref, a: Any, b: Ref) -> None:
    a = a.array if isinstance(a, Ref) else np.asarray(a)
    assert a.dtype == b.array.dtype and into.array.dtype == np.float32
    into.array += a.astype(np.float32) @ b.array.astype(np.float32)


def _copied(source: Ref, into: Ref) -> None:
    assert source.shape == into.shape and source.array.dtype == into.array.dtype
    into.array[...] = source.array


def _copy_in(source: Ref, into: Ref, barrier: Barrier) -> None:
    _copied(source, into)
    barrier.arrive()


def _run_scoped(body: Callable[[Ref], Any], accumulator: Scratch) -> Any:
    return body(Ref(np.zeros(accumulator.shape, np.dtype(accumulator.dtype))))


def _run_state(body: Callable[[Ref], None]) -> Callable[[Any], jax.Array]:
    def run(start: Any) -> jax.Array:
        ref = Ref(np.array(start))
        body(ref)
        return jnp.asarray(ref.array)

    return run


def _when(condition: Any) -> Callable[[Callable[[], None]], None]:
    return lambda body: body() if bool(condition) else None


def _fori_loop(start: Any, stop: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    for j in range(int(start), int(stop)):
        carry = body(jnp.int32(j), carry)
    return carry


def _kernel(body: Callable[..., None], **call: Any) -> Callable[..., Any]:
    def run(*operands: Any) -> Any:
        out, tree = jax.tree.flatten(call["out_type"])
        made = [Ref(np.full(x.shape, np.nan, np.dtype(x.dtype))) for x in out]
        inputs = [Ref(np.asarray(x)) for x in operands]
        for place in itertools.product(*map(range, call["grid"])):
            _program(body, [*inputs, *made], call, dict(zip(call["grid_names"], place, strict=True)))
        return jax.tree.unflatten(tree, [jnp.asarray(x.array) for x in made])

    return run


def _program(body: Callable[..., None], refs: list[Ref], call: Any, place: dict[str, int]) -> None:
    """One program: its warpgroups side by side, each to its end."""
    kinds = (Scratch, Barriers)
    scratch = jax.tree.map(lambda x: x.made(), call["scratch_types"], is_leaf=lambda x: isinstance(x, kinds))
    failed: list[BaseException] = []

    def warpgroup(number: int) -> None:
        HERE.at, HERE.others_failed = {**place, call["thread_name"]: number}, failed
        try:
            body(*refs, *scratch)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=warpgroup, args=(i,)) for i in range(call["num_threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


class _Shim:
    """A module with some of its functions exchanged."""

    def __init__(self, module: Any, **others: Any) -> None:
        vars(self).update(others)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _Any:
    """What only says how registers and memory are laid out."""

    def __call__(self, *arguments: Any, **named: Any) -> _Any:
        return self

    def __getattr__(self, name: str) -> _Any:
        return self


class _Accumulator(Scratch):
    @staticmethod
    def init(value: Any) -> Any:
        return value


PALLAS = _Shim(
    None,
    when=_when,
    ds=lambda start, size: slice(int(start), int(start) + size),
    run_scoped=_run_scoped,
    run_state=_run_state,
)
PLGPU = _Shim(
    _Any(),
    kernel=_kernel,
    load=_load,
    layout_cast=lambda value, layout: value,
    SMEM=Scratch,
    ACC=_Accumulator,
    Barrier=Barriers,
    wgmma=_wgmma,
    copy_gmem_to_smem=_copy_in,
    copy_smem_to_gmem=_copied,
    barrier_arrive=lambda barrier: barrier.arrive(),
    barrier_wait=lambda barrier: barrier.wait(),
)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within a test the GPU backend takes calls on any device, and its kernels are emulated."""
    there = _Shim(lax, fori_loop=_fori_loop, axis_index=lambda name: jnp.int32(HERE.at[name]))
    for module in MODULES:
        monkeypatch.setattr(module, "pallas", lambda: (PALLAS, PLGPU))
        if hasattr(module, "lax"):
            monkeypatch.setattr(module, "lax", there)
    monkeypatch.setattr(pallas_gpu, "unavailable", lambda platform, chip=None: None)
    monkeypatch.setattr(jax.custom_batching, "sequential_vmap", lambda f: f)
    assert "idx" in inspect.signature(_load).parameters  # as `mosaic.load` asks
    with jax.disable_jit():
        yield
