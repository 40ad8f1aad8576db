"""Each error as it is printed: ``cases/NAME.attn`` (or ``NAME/main.attn`` with the files it imports, or
``NAME.toml``, a call of the API) beside ``NAME.txt``.

Names begin with the code that the case must raise. A ``.toml`` gives a ``spec`` (``repeat`` times, ``then``
an end), or the ``hex`` of its bytes, and what to ``call``; or only a ``class`` and its fields, where the
error belongs to a part that needs a device or much memory to be run.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import patterndsl
import patterndsl.diagnostics as diagnostics
from patterndsl.diagnostics import Diagnostic, SpecError, registry, render
from patterndsl.frontend import load, parse
from patterndsl.lint import lint
from patterndsl.spec import Spec

CASES = Path(__file__).parent / "cases"
PATHS = sorted([*CASES.glob("*.attn"), *CASES.glob("*.toml"), *(p.parent for p in CASES.glob("*/main.attn"))])


def frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def found_in(path: Path) -> tuple[Diagnostic, ...]:
    if path.suffix != ".toml":
        return raised(lambda: load(path / "main.attn" if path.is_dir() else path))
    case = tomllib.loads(path.read_text("utf-8"))
    if "class" in case:
        cls = getattr(diagnostics, case["class"])
        return (cls(**{name: frozen(value) for name, value in case["fields"].items()}),)
    if case["call"] == "load":
        return raised(lambda: load(case["file"]))
    text = case.get("spec", "") * case.get("repeat", 1) + case.get("then", "")
    source = bytes.fromhex(case["hex"]) if "hex" in case else text.removeprefix("\n")
    if case["call"] == "parse":
        return raised(lambda: parse(source))
    spec = parse(source)
    arguments = case.get("arguments", {})
    if case["call"] == "lint":
        return lint(spec, **arguments)
    if case["call"] in ("compile", "plan", "run", "initial_state"):
        return raised(lambda: compiled(spec, case["call"], case.get("options", {}), arguments))
    return raised(lambda: getattr(spec, case["call"])(**arguments))


def compiled(spec: Spec, call: str, options: dict[str, Any], arguments: dict[str, Any]) -> None:
    attention = patterndsl.compile(spec, **options)
    if call in ("plan", "initial_state"):
        getattr(attention, call)(**arguments)
    elif call == "run":
        q = np.zeros((4, 1, 8), np.float32)
        attention(q, q, q)


def raised(action: Callable[[], object]) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        action()
    assert str(caught.value) == render(caught.value.diagnostics)
    return caught.value.diagnostics


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_message(path: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)  # so that paths print the same everywhere
    found = found_in(path.relative_to(CASES) if path.suffix != ".toml" else path)
    text = render(found)
    golden(CASES / f"{path.stem}.txt", text + "\n")
    code = path.stem.split("_")[0]
    assert (
        path.stem.startswith("many")
        or not re.fullmatch(r"[ENW]\d{3}", code)
        or code in {d.code for d in found}
    )
    assert "\x1b[" in render(found, color=True)
    assert [d.to_json()["code"] for d in found] == [d.code for d in found]


def test_every_code_has_a_case() -> None:
    covered = {path.stem.split("_")[0] for path in PATHS}
    assert set(registry()) <= covered


def test_every_golden_file_has_its_case() -> None:
    assert {p.stem for p in CASES.glob("*.txt")} <= {p.stem for p in PATHS}


@pytest.mark.parametrize("cls", registry().values(), ids=lambda c: c.code)
def test_explanations(cls: type[Diagnostic]) -> None:
    text = cls.explain()
    assert text.startswith(f"{cls.code}: {cls.title}")
    assert len(cls.about.split()) >= 8
    assert all(len(line) <= 120 for line in text.splitlines())
    assert re.fullmatch({"error": "E", "warning": "W", "note": "N"}[cls.severity] + r"\d{3}", cls.code)


EXECUTABLE = [
    cls for cls in registry().values() if cls.code[0] == "E" and not cls.wrong.startswith((">>>", "$"))
]


@pytest.mark.parametrize("cls", EXECUTABLE, ids=lambda c: c.code)
def test_examples_of_explanations_are_true(cls: type[Diagnostic]) -> None:
    with pytest.raises(SpecError) as caught:
        parse(cls.wrong)
    assert caught.value.codes == (cls.code,)
    if not cls.right.startswith((">>>", "$")):
        parse(cls.right)


WARNINGS = [registry()[code] for code in ("W001", "W002", "W003", "N001", "N002")]


@pytest.mark.parametrize("cls", WARNINGS, ids=lambda c: c.code)
def test_examples_of_warnings_are_true(cls: type[Diagnostic]) -> None:
    assert cls.code in {d.code for d in lint(parse(cls.wrong))}
    assert not lint(parse(cls.right))


PYTHON = [
    cls
    for cls in registry().values()
    if cls.code < "E405"
    and cls.wrong.startswith(">>>")
    and cls.right.startswith(">>>")
    and "compile" not in cls.wrong
]


@pytest.mark.parametrize("cls", PYTHON, ids=lambda c: c.code)
def test_python_examples_of_explanations_are_true(cls: type[Diagnostic]) -> None:
    import patterndsl

    with pytest.raises(SpecError) as caught:
        eval(cls.wrong.removeprefix(">>>"), {"patterndsl": patterndsl})
    assert caught.value.codes == (cls.code,)
    eval(cls.right.removeprefix(">>>"), {"patterndsl": patterndsl})


def test_a_missing_field_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="needs name"):
        diagnostics.UnknownPattern()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no field nam"):
        diagnostics.UnknownPattern(name="x", nam="y")  # type: ignore[call-arg]
    error = diagnostics.UnknownPattern(name="x")
    with pytest.raises(AttributeError):
        error.name = "y"  # type: ignore[misc]
    assert error == diagnostics.UnknownPattern(name="x")
    assert error != diagnostics.UnknownPattern(name="y")
    assert len({error, diagnostics.UnknownPattern(name="x")}) == 1


def test_many_errors_are_cut() -> None:
    with pytest.raises(SpecError) as caught:
        parse(" | ".join(f"x{i}" for i in range(30)))
    assert len(caught.value.diagnostics) == 30
    assert str(caught.value).endswith("... and 10 more")


def test_long_lines_are_cut_around_the_caret() -> None:
    with pytest.raises(SpecError) as caught:
        parse("causal | " * 50 + "locl(4) | " + "causal | " * 50 + "causal")
    lines = str(caught.value).splitlines()
    assert all(len(line) < 130 for line in lines)
    at = lines[3].index("locl")
    assert lines[4][at : at + 4] == "^^^^"
    assert lines[4][at - 1] == " "


def test_control_characters_are_not_printed() -> None:
    with pytest.raises(SpecError) as caught:
        parse('hierarchical(4, reduce="\x1b[31m\x07")')
    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)
