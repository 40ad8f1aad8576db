"""The verbs that only read text: fmt, patterns, explain; and wrong usage."""

import json

import pytest

import patterndsl as pd
from patterndsl.diagnostics import registry
from patterndsl.patterns import builtins
from tests.cli import patterndsl


def test_no_verb_prints_the_verbs():
    result = patterndsl()
    assert result.code == 2 and "patterns" in result.err


def test_version():
    assert patterndsl("--version").out == f"{pd.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("fmt",),
        ("fmt", "no such file.attn"),
        ("fmt", "."),
        ("fmt", "-e", "causal", "--write"),
        ("patterns", "locl"),
        ("patterns", "--json", "--markdown"),
        ("explain", "E999"),
        ("explain", "E101", "E102"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(arguments):
    result = patterndsl(*arguments)
    assert result.code == 2
    assert result.out == "" and "rror: " in result.err and "Traceback" not in result.err


def test_fmt_prints_the_canonical_form():
    assert patterndsl("fmt", "-e", "local( 3 )|causal").out == "local(3) | causal\n"
    assert patterndsl("fmt", "-", stdin=b"local( 3 )|causal").out == "local(3) | causal\n"


def test_fmt_of_a_wrong_spec_exits_with_1():
    result = patterndsl("fmt", "-e", "local(3")
    assert result.code == 1 and result.out == ""
    assert "<expression>:1:6" in result.err


def test_fmt_write_and_check(tmp_path):
    path = tmp_path / "a.attn"
    path.write_text("local( 3 )|causal")
    result = patterndsl("fmt", "--check", path)
    assert result.code == 1 and str(path) in result.err
    assert patterndsl("fmt", "--write", path).code == 0
    assert path.read_text() == "local(3) | causal\n"
    assert patterndsl("fmt", "--check", path).code == 0


def test_patterns_names_every_pattern_and_argument():
    listed = json.loads(patterndsl("patterns", "--json").out)
    assert [p["name"] for p in listed] == sorted(builtins())
    local = next(p for p in listed if p["name"] == "dilated")
    assert [a["name"] for a in local["arguments"]] == ["window", "dilation"]
    text, markdown = patterndsl("patterns").out, patterndsl("patterns", "--markdown").out
    for p in listed:
        assert p["signature"] in text and f"### `{p['signature']}`" in markdown


def test_patterns_shows_defaults():
    (shown,) = json.loads(patterndsl("patterns", "hierarchical", "--json").out)
    strings = 'reduce="mean", weight="count", of="tokens"'
    assert shown["signature"] == f"hierarchical(factor, window=1, leaf=auto, levels=auto, {strings})"


def test_explain_knows_every_code():
    codes = [line.split()[0] for line in patterndsl("explain").out.splitlines()]
    assert codes == list(registry())
    for code in codes:
        assert patterndsl("explain", code.lower()).out.startswith(f"{code}: ")
