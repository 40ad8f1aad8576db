"""The README's code runs, and prints what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import patterndsl as pd
from tests.cli import patterndsl

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands():
    """Each `$ patterndsl …` with the lines that it is said to print."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append(pytest.param(command, printed, id=" ".join(command.split()[1:4])))
    return found


def test_the_blocks_are_found():
    assert len(blocks("python")) >= 4 and len(commands()) >= 10
    assert len(re.findall("^```", README, re.MULTILINE)) == 2 * sum(
        len(blocks(language)) for language in ("python", "console", "attn", "text")
    )


def test_python():
    """One after the other, in one session."""
    exec(compile("\n".join(blocks("python")), "README.md", "exec"), {})


@pytest.mark.parametrize(("command", "printed"), commands())
def test_command(command, printed, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command, comments=True)
    assert program == "patterndsl"
    result = patterndsl(*arguments)
    assert result.code == 0, result.err
    assert not printed or result.out == printed


def test_specs():
    for block in blocks("attn"):
        pd.parse(block)
    for block in re.findall(r"^    (causal &.*)$", README, re.MULTILINE):
        pd.parse(block)


def test_errors():
    (block,) = blocks("text")
    (spec,) = re.findall(r"^\d \| (.*)$", block, re.MULTILINE)
    assert patterndsl("check", "-e", spec).err == block


def test_files_that_are_named_exist():
    named = re.findall(
        r"(?:python3? |\]\(|`)((?:examples|benchmarks|tests|patterndsl|backends|grammar)/[\w./]*)", README
    )
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_page_of_patterns_has_them_all():
    """`python docs/generate.py` writes it; after a new pattern, write it again."""
    from patterndsl.commands.patterns import signature
    from patterndsl.lower.files import library
    from patterndsl.patterns import builtins

    page = (ROOT / "docs" / "patterns.md").read_text("utf-8")
    headings = [signature(cls) for _, cls in sorted(builtins().items())] + [f"import {x}" for x in library()]
    assert re.findall(r"^### `(.*)`$", page, re.MULTILINE) == headings
    pictures = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert set(re.findall(r"\(pictures/(.*)\)", page)) == pictures


def test_every_line_for_a_published_pattern_is_a_spec():
    page = (ROOT / "docs" / "no_patterns.md").read_text("utf-8")
    lines = re.findall(r"^    ([^#\n]+)$", page, re.MULTILINE)
    assert len(lines) > 8
    for line in lines:
        inputs = "".join(f"input {x}: token\n" for x in ("doc", "image") if f"{x}[" in line)
        pd.parse(f"{inputs}pattern main = {line}").bind(4096)
