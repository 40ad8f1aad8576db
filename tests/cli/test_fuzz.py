"""No input makes a verb crash: random bytes, random text, and specs with a few characters changed."""

from __future__ import annotations

from importlib.resources import files

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli import patterndsl

SPECS = [
    path.read_text("utf-8")
    for path in sorted((files("patterndsl.grammar") / "lib").iterdir(), key=lambda p: p.name)
    if path.name.endswith(".attn")
]
PIECES = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "&",
    "|",
    "~",
    "^",
    "+",
    "-",
    "*",
    "//",
    "%",
    "**",
    ",",
    ":",
    "=",
    "=>",
    ";",
]
PIECES += [
    '"',
    "#",
    "\n",
    " ",
    "_",
    "0",
    "1",
    "-1",
    "7",
    "999999999999",
    "1.5",
    "n",
    "q",
    "k",
    "h",
    "doc",
    "main",
]
PIECES += [
    "pattern ",
    "param ",
    "input ",
    "import ",
    "where(q, k: ",
    "heads {",
    "layers {",
    "every 2",
    " and ",
    " in ",
]
PIECES += [
    "causal",
    "local",
    "global",
    "hierarchical(factor=2)",
    "mix(",
    "sqrt(n)",
    "same(doc)",
    "\0",
    "é",
    "\t",
]

mutations = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=4
)


@st.composite
def mutated_specs(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from(SPECS))
    for where, length, piece in draw(mutations):
        at = int(where * len(text))
        text = text[:at] + piece + text[at + length :]
    return text.encode()


token_soup = st.lists(st.sampled_from(PIECES), max_size=30).map(lambda parts: "".join(parts).encode())
inputs = st.one_of(st.binary(max_size=60), token_soup, mutated_specs())
VERBS = {
    "check": ["check"],
    "fmt": ["fmt"],
    "ast": ["compile", "--emit", "ast"],
    "ir": ["compile", "--emit", "ir"],
    "show": ["show", "-n", "16"],
    "analyze": ["analyze", "-n", "256"],
    "diff": ["diff", "-n", "8", "-e", "causal & local(4)"],
}


@pytest.mark.parametrize("verb", VERBS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=inputs)
def test_no_input_crashes(verb: str, data: bytes) -> None:
    command, *rest = VERBS[verb]
    result = patterndsl(command, "-", *rest, stdin=data)
    assert result.code in (0, 1), result.err  # 70 is an internal error
    assert "Traceback" not in result.err
    reported = "error[" in result.err or result.out.startswith("different")
    assert (result.code == 1) == reported, result.err
