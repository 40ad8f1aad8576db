"""Integer expressions as sums: ``Σ coefficient · atom + constant``, in which equal terms cancel.

An atom is whatever is not a sum: a variable, a quotient, a minimum. Bounds of a sum of atoms are tighter than
bounds put together operation by operation, as ``x − x`` shows.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from patterndsl.ir.expr import BOOL_OPS, COMPARE_OPS, Expr

TRUTHS = BOOL_OPS | {"bool"}
SUMS = frozenset({"add", "sub", "neg", "mul", "const"})


class Linear(NamedTuple):
    """``Σ coefficient · atom + constant``; no coefficient is 0, no atom comes twice."""

    terms: tuple[tuple[Expr, int], ...]
    constant: int

    def plus(self, other: Linear, factor: int = 1) -> Linear:
        """``self + factor · other``."""
        total = dict(self.terms)
        for atom, c in other.terms:
            total[atom] = total.get(atom, 0) + factor * c
        kept = tuple((atom, c) for atom, c in total.items() if c)
        return Linear(kept, self.constant + factor * other.constant)


class Program(NamedTuple):
    """The order in which an interpreter visits an expression, operands first, and the sum that each number
    is.

    ``forms`` has an entry for each number that is not an atom, and for each comparison ``a ? b``: the form of
    a − b. Bodies of quantifiers have programs of their own.
    """

    order: tuple[Expr, ...]
    forms: dict[Expr, Linear]


@functools.lru_cache(maxsize=4096)
def program(e: Expr) -> Program:
    """The program of an expression."""
    forms: dict[Expr, Linear] = {}
    for node in e.walk():
        if node.op in COMPARE_OPS:
            if not _truth(node.args[0]):
                forms[node] = forms[node.args[0]].plus(forms[node.args[1]], -1)
        elif node.op not in TRUTHS and not (node.op == "if" and _truth(node.args[1])):
            forms[node] = _form(node, forms)
    order = _order(e, forms)
    return Program(order, {n: f for n, f in forms.items() if n.op in SUMS or n.op in COMPARE_OPS})


def linear(e: Expr) -> Linear:
    """A number as a sum of atoms."""
    forms = program(e).forms
    return forms[e] if e in forms else Linear(((e, 1),), 0)


def _truth(e: Expr) -> bool:
    while e.op == "if":
        e = e.args[1]
    return e.op in TRUTHS or e.op in COMPARE_OPS


def _form(e: Expr, forms: dict[Expr, Linear]) -> Linear:
    match e.op:
        case "const":
            return Linear((), int(e))
        case "add":
            return forms[e.args[0]].plus(forms[e.args[1]])
        case "sub":
            return forms[e.args[0]].plus(forms[e.args[1]], -1)
        case "neg":
            return Linear((), 0).plus(forms[e.args[0]], -1)
        case "mul":
            for a, b in (e.args, e.args[::-1]):
                if not forms[a].terms:
                    return Linear((), 0).plus(forms[b], forms[a].constant)
    return Linear(((e, 1),), 0)


def is_sum(e: Expr, forms: dict[Expr, Linear]) -> bool:
    """The number is read off its form (a product of two variables, for one, is an atom)."""
    return e in forms and forms[e].terms != ((e, 1),)


def _order(e: Expr, forms: dict[Expr, Linear]) -> tuple[Expr, ...]:
    seen: dict[Expr, None] = {}
    stack = [(e, False)]
    while stack:
        node, ready = stack.pop()
        if node in seen:
            continue
        if ready:
            seen[node] = None
            continue
        stack.append((node, True))
        if is_sum(node, forms):
            needed = tuple(atom for atom, _ in forms[node].terms)
        else:
            needed = node.args[:2] if node.op in ("forall", "exists") else node.args
        stack.extend((a, False) for a in needed)
    return tuple(seen)
