"""The list of passes, what runs around them, and that a pass is one file and one line."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import subprocess
import sys

import pytest

import patterndsl as pd
from patterndsl import passes
from patterndsl.diagnostics import SpecError
from patterndsl.ir.nodes import Complement, Module
from patterndsl.ir.verify import InvalidIR
from patterndsl.passes import DEFAULT, PASSES, Pass, run
from patterndsl.passes.empty import find_empty


def every_class() -> set[type[Pass]]:
    for info in pkgutil.iter_modules(passes.__path__):
        importlib.import_module(f"{passes.__name__}.{info.name}")
    return {c for c in Pass.__subclasses__() if c.__module__.startswith(passes.__name__)}


def test_every_pass_is_listed_in_a_file_of_its_name() -> None:
    assert every_class() == {type(p) for p in PASSES.values()}
    for name, p in PASSES.items():
        assert type(p).__module__ == f"{passes.__name__}.{name}"
        assert p.name == name
        assert "->" in (type(p).__doc__ or "")
        assert dataclasses.is_dataclass(p) and dataclasses.fields(p) == ()


def test_passes_run_by_name_and_in_order() -> None:
    seen: list[tuple[str, str]] = []
    module = pd.parse("causal & (local(4) | none)").module
    run(module, ["canonicalize", "sink_causal"], lambda name, m: seen.append((name, str(m.main))))
    assert seen == [
        ("input", "causal & (local(4) | none)"),
        ("canonicalize", "local(left=3, right=0)"),
        ("sink_causal", "local(left=3, right=0)"),
    ]
    with pytest.raises(KeyError):
        run(module, ["canonicalise"])


def test_the_verifier_stops_a_faulty_pass() -> None:
    @dataclasses.dataclass(frozen=True)
    class Faulty(Pass):
        def apply(self, module: Module) -> Module:
            return dataclasses.replace(module, main=pd.parse("same(doc)", None).module.main)

    with pytest.raises(InvalidIR, match="input"):
        run(pd.parse("causal").module, [Faulty()])


def test_the_verifier_sees_the_module_before_the_first_pass() -> None:
    module = Module(Complement(pd.parse("hierarchical(4)").module.main))
    with pytest.raises(SpecError) as caught:
        run(module, [])
    assert caught.value.codes == ("E209",)


def test_empty_patterns_are_reported_where_they_stand() -> None:
    found = find_empty(pd.parse("causal | (causal & ~causal) | where(q, k: q < 0) & self | none").module)
    assert [d.span.text for d in found if d.span is not None] == [
        "where(q, k: q < 0) & self",
        "causal & ~causal",
    ]
    assert find_empty(pd.parse("causal & (local(4) | hierarchical(4))").module) == ()
    (whole,) = find_empty(pd.parse("causal & ~causal").module)
    assert whole.message() == "`causal & ~causal` keeps nothing for any n"


HEADLINE = "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))"


def test_the_headline_needs_no_exact_sets() -> None:
    code = (
        "import sys, patterndsl as pd; from patterndsl.passes import optimize; "
        f"optimize(pd.parse({HEADLINE!r}).module); print('islpy' in sys.modules, 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


def test_wide_and_deep_trees_do_not_hang() -> None:
    wide = " | ".join(f"strided({i})" for i in range(2, 400))
    deep = (
        "(" * 45
        + "strided(3)"
        + "".join(f" | where(q, k: k % {i} < 2)) & strided({i})" for i in range(2, 47))
    )
    many = " | ".join(f"(strided({i}) & chunked({i + 1}))" for i in range(2, 47))
    for spec in (wide, deep, many):
        run(pd.parse(spec).module, DEFAULT)
