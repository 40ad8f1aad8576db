"""Expressions over arrays: the meaning of every operation, in NumPy or in JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from patterndsl.ir.expr import Expr, bound
from patterndsl.ir.table import Table

Inputs = Mapping[Any, Any]


def evaluate(e: Expr, env: Mapping[str, Any], inputs: Inputs | None = None, xp: Any = np) -> Any:
    """The value of ``e`` where variables have the (broadcastable) integer arrays of ``env``.

    ``inputs``: for each run-time input an array whose last axis is the token's position (leading axes:
    batch), read by `read_input`; for each `Fact` its `FactArray` (leading axes: batch, heads), read by
    `read_fact`. ``xp`` is ``numpy`` or ``jax.numpy``; nothing else differs between
    the two.
    """
    done: dict[Expr, Any] = {}
    nodes = e.walk()
    if any(x.op in ("forall", "exists") for x in nodes):  # bodies are evaluated by their quantifier
        free = e.free()
        nodes = [x for x in nodes if free[x] <= env.keys()]
    for node in nodes:
        done[node] = _evaluate(node, done, env, inputs or {}, xp)
    return done[e]


def _evaluate(node: Expr, done: dict[Expr, Any], env: Mapping[str, Any], inputs: Inputs, xp: Any) -> Any:
    op = node.op
    if op in ("const", "bool"):
        return node.value
    if op == "var":
        return env[str(node.value)]
    if op in ("forall", "exists"):
        return _quantifier(node, env, inputs, xp)
    a = [done[x] for x in node.args]
    if op == "input":
        return read_input(inputs[str(node.value)], a[0], xp)
    if op == "fact":
        return read_fact(inputs[node.value], a, xp)
    if op == "lookup":
        assert isinstance(node.value, Table)
        return node.value.contains(a[0], a[1], xp)
    return _ARRAY[op](xp, *a)


def read_input(values: Any, position: Any, xp: Any) -> Any:
    """``values[..., position]``, positions outside the sequence moved to its ends; or what a function in
    place of the array says."""
    if callable(values):
        return values(position)
    values, at = xp.asarray(values), xp.clip(position, 0, values.shape[-1] - 1)
    if values.ndim > 1 and xp.ndim(at) == 0:  # one position known to all: the batch axes stay in front
        at = xp.reshape(xp.asarray(at), (1, 1))
    return values[..., at]


def read_fact(found: Any, indices: list[Any], xp: Any) -> Any:
    """The values of a `FactArray` at one or two indices, each moved to the ends of its axis; or what a
    function in its place says."""
    if callable(found):
        return found(*indices)
    values, first = found
    at = [indices[0] - first, *indices[1:]]
    at = [xp.clip(i, 0, size - 1) for i, size in zip(at, values.shape[-len(at) :], strict=True)]
    if all(xp.ndim(i) == 0 for i in at):  # a place known to all: the axes of batch and heads stay in front
        at[0] = xp.reshape(xp.asarray(at[0]), (1, 1))
    return values[(..., *at)]


def _quantifier(node: Expr, env: Mapping[str, Any], inputs: Inputs, xp: Any) -> Any:
    first, last, body = node.args
    name, trips = bound(node)
    low = evaluate(first, env, inputs, xp)
    high = evaluate(last, env, inputs, xp)
    every = node.op == "forall"

    def step(i: Any, so_far: Any) -> Any:
        x = low + i
        held = evaluate(body, {**env, name: x}, inputs, xp)
        return so_far & (held | (x > high)) if every else so_far | (held & (x <= high))

    if xp is np:
        result: Any = np.asarray(every)
        for i in range(trips):
            result = step(i, result)
        return result
    import jax

    shape = jax.eval_shape(lambda: step(0, every)).shape
    return jax.lax.fori_loop(0, trips, step, xp.full(shape, every))


def _and(xp: Any, *a: Any) -> Any:
    result = a[0]
    for x in a[1:]:
        result = result & x
    return result


def _or(xp: Any, *a: Any) -> Any:
    result = a[0]
    for x in a[1:]:
        result = result | x
    return result


def _popcount(xp: Any, a: Any) -> Any:
    if xp is np:
        return np.bitwise_count(np.asarray(a)).astype(np.int64)
    import jax

    return jax.lax.population_count(xp.asarray(a))


_ARRAY: dict[str, Any] = {
    "add": lambda xp, a, b: a + b,
    "sub": lambda xp, a, b: a - b,
    "mul": lambda xp, a, b: a * b,
    "floordiv": lambda xp, a, b: a // b,
    "mod": lambda xp, a, b: a % b,
    "neg": lambda xp, a: -a,
    "abs": lambda xp, a: abs(a),
    "min": lambda xp, a, b: xp.minimum(a, b),
    "max": lambda xp, a, b: xp.maximum(a, b),
    "xor": lambda xp, a, b: xp.bitwise_xor(a, b),
    "popcount": _popcount,
    "lt": lambda xp, a, b: a < b,
    "le": lambda xp, a, b: a <= b,
    "eq": lambda xp, a, b: a == b,
    "ne": lambda xp, a, b: a != b,
    "and": _and,
    "or": _or,
    "not": lambda xp, a: xp.logical_not(a),
    "if": lambda xp, c, a, b: xp.where(c, a, b),
}
