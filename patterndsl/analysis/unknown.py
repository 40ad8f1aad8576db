"""What can be said of a predicate without its run-time inputs: the pairs that it may keep and those that
it must."""

from __future__ import annotations

from patterndsl.ir.expr import COMPARE_OPS, FALSE, TRUE, Expr, K, Q, as_expr, build, maximum, minimum, where


def without_inputs(e: Expr, most: bool) -> Expr:
    """A condition without inputs that ``e`` implies for all values of its inputs (``most``), or that
    implies ``e``."""
    if not e.reads_data():
        return e
    match e.op:
        case "and" | "or":
            return build(e.op, *(without_inputs(a, most) for a in e.args))
        case "not":
            return ~without_inputs(e.args[0], not most)
        case "if":
            condition, yes, no = e.args
            return without_inputs((condition & yes) | (~condition & no), most)
        case "forall" | "exists" if not (e.args[0].reads_data() or e.args[1].reads_data()):
            return build(e.op, *e.args[:2], without_inputs(e.args[2], most), value=e.value)
    if e.op in ("lt", "le"):
        left, right = _number(e.args[0], not most), _number(e.args[1], most)
        if left is not None and right is not None:
            return build(e.op, left, right)
    if most:
        return TRUE
    if e.op in COMPARE_OPS and e.names() == {"q", "k"} and e.subs({"k": Q}) is TRUE:
        return Q.eq(K)  # doc[q] = doc[k], whatever doc is
    return FALSE


def _number(e: Expr, most: bool) -> Expr | None:
    """A bound on a number for all values of the inputs, None where there is none."""
    if not e.reads_data():
        return e
    a = e.args
    match e.op:
        case "add" | "min" | "max":
            left, right = _number(a[0], most), _number(a[1], most)
        case "sub":
            left, right = _number(a[0], most), _number(a[1], not most)
        case "neg":
            left, right = as_expr(0), _number(a[0], not most)
            return None if right is None else left - right
        case "if":
            yes, no = a[1].number, a[2].number
            if yes is not None and no is not None:
                return where(without_inputs(a[0], most if yes >= no else not most), yes, no)
            left, right = _number(a[1], most), _number(a[2], most)
            if left is None or right is None:
                return None
            return maximum(left, right) if most else minimum(left, right)
        case _:
            return None
    return None if left is None or right is None else build(e.op, left, right)
