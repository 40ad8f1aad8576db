"""The verifier: each rule, broken."""

from __future__ import annotations

import pytest

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.ir.expr import Expr, K, Q, as_expr, build, read, var
from patterndsl.ir.nodes import (
    Call,
    Complement,
    Difference,
    Function,
    Heads,
    Intersection,
    Layers,
    Mix,
    Module,
    Node,
    Range,
    Sum,
    SymmetricDifference,
    Union,
    Where,
)
from patterndsl.ir.verify import InvalidIR, verify
from patterndsl.patterns import builtin

LOCAL, CAUSAL, TREE = builtin("local"), builtin("causal")(), builtin("tree")(as_expr(4))
TRUE_NUMBER = as_expr(True)

INVALID = {
    "a predicate is true": Where(Q + K),
    "`x` has no value": Where(var("x") < K),
    "`$w` has no value": LOCAL(var("$w")),
    "`q` has no value": LOCAL(Q),
    "`%m` has no value": Where(var("%m") > K),
    "declared by its module": Where(read("doc", Q) < 3),
    "of kind centroids": builtin("cluster")(as_expr(4), as_expr(4), "known"),
    "takes a number": LOCAL("4"),
    "takes a tokens": builtin("columns")(as_expr(4)),
    "takes a shape": builtin("axial")((), as_expr(0)),
    "takes a pattern": builtin("transpose")(as_expr(1)),
    "takes a string": builtin("hierarchical")(as_expr(4), reduce="median"),
    "`of` of tree takes a string": builtin("tree")(as_expr(4), of=max),
    "an argument is a number": LOCAL(as_expr(4) < 3),
    "reads no run-time input": LOCAL(read("known", as_expr(0))),
    "an operator has members": Union(()),
    "a member of Sum is a pattern": Sum((CAUSAL, as_expr(1))),
    "a call names a function": Call("nowhere", ()),
    "each case has": Heads((Range(0, 1),), (), CAUSAL),
    "a range selects": Layers((Range(4, 4),), (CAUSAL,), None),
    "a head has one case": Heads((Range(0, 4), Range(3, 8)), (CAUSAL, CAUSAL), None),
    "operand of `add`": Where(Expr("add", (Q, TRUE_NUMBER)) < K),
    "operand of `and`": Where(Expr("and", (Q < K, K))),
    "operand of `if`": Where(build("if", Q < K, Q, K).eq(Expr("if", (Q, K, K)))),
    "operand of `forall`": Where(Expr("forall", (Q, K, Q), ("x", 3))),
    "operand of `nonsense`": Where(Expr("nonsense", (Q,)) < K),
}


@pytest.mark.parametrize("rule", INVALID)
def test_a_broken_rule_is_named(rule: str) -> None:
    with pytest.raises(InvalidIR, match=rule.replace("$", r"\$")):
        verify(Module(INVALID[rule], inputs={"known": "token"}))


def test_functions_and_params_are_looked_at_too() -> None:
    with pytest.raises(InvalidIR, match="param w"):
        verify(Module(CAUSAL, params={"w": var("$v")}))
    body = Function(("m",), LOCAL(var("%m")))
    verify(Module(Call("near", (as_expr(4),)), functions={"near": body}))
    with pytest.raises(InvalidIR, match="a call names a function"):
        verify(Module(Call("near", ()), functions={"near": body}))
    with pytest.raises(InvalidIR, match="%k"):
        verify(Module(CAUSAL, functions={"near": Function(("m",), LOCAL(var("%k")))}))


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (Complement(TREE), "E209"),
        (SymmetricDifference((CAUSAL, TREE)), "E209"),
        (Difference(CAUSAL, TREE), "E209"),
        (builtin("transpose")(TREE), "E209"),
        (Complement(Union((CAUSAL, Intersection((TREE, CAUSAL))))), "E209"),
        (Intersection((TREE, Union((CAUSAL, TREE)))), "E210"),
        (Complement(Mix((CAUSAL, CAUSAL))), "E208"),
        (Intersection((Mix((CAUSAL, CAUSAL)), Mix((CAUSAL, CAUSAL, CAUSAL)))), "E208"),
    ],
)
def test_what_a_spec_can_cause_is_an_error_of_the_spec(node: Node, code: str) -> None:
    from patterndsl.diagnostics import MisplacedSyntax

    with pytest.raises(SpecError) as caught:
        verify(Module(node))
    assert set(caught.value.codes) == {MisplacedSyntax.code if code == "E208" else code}


def test_summaries_are_found_through_calls() -> None:
    module = Module(Complement(Call("far", ())), functions={"far": Function((), TREE)})
    with pytest.raises(SpecError) as caught:
        verify(module)
    assert caught.value.codes == ("E209",)


def test_errors_of_a_tree_are_at_its_spans() -> None:
    spec = pd.parse("tree(4) | causal")
    module = Module(Complement(spec.module.main), spans=spec.module.spans)
    with pytest.raises(SpecError) as caught:
        verify(module)
    (error,) = caught.value.diagnostics
    assert error.span is not None and error.span.text == "tree(4) | causal"


def test_the_language_passes() -> None:
    verify(
        pd.parse(
            "param w = n // 2\ninput doc: token\npattern near(m) = local(m)\n"
            "pattern main = layers { every 6 => mix(near(w), causal) & same(doc); _ => "
            "heads { 0:2 => tree(2) - self; _ => hierarchical(4) & where(q, k: k % num_heads == h) "
            "| shift(causal + causal, 3) } }"
        ).module
    )
