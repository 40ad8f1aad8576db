"""Reading imported files. They are untrusted, as the spec itself: few, small, and named `*.attn`."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from pathlib import Path

from patterndsl.diagnostics import (
    Diagnostics,
    ImportCycle,
    ImportsTooDeep,
    MissingImport,
    NoImportName,
    SpecError,
    UnreadableFile,
)
from patterndsl.syntax import ast, limits
from patterndsl.syntax.parser import decode, parse_source
from patterndsl.syntax.source import Source

MAX_NESTED = 16
MAX_FILES = 100
LIBRARY = "patterndsl.grammar.lib"


@dataclasses.dataclass
class Loader:
    """Reads the files that a spec imports; ``open_files`` are those being read, the innermost last."""

    found: Diagnostics
    open_files: list[Path]
    count: int = 0

    def load(self, statement: ast.Import) -> tuple[Path, ast.File] | None:
        """The file of an import, parsed, and its path; None where errors were reported."""
        path = self._path(statement)
        if path is None:
            return None
        if path in self.open_files:
            cycle = (*self.open_files[self.open_files.index(path) :], path)
            self.found.add(ImportCycle(cycle=tuple(p.name for p in cycle), span=statement.span))
            return None
        self.count += 1
        if len(self.open_files) > MAX_NESTED or self.count > MAX_FILES:
            nested = len(self.open_files) > MAX_NESTED
            limit = MAX_NESTED if nested else MAX_FILES
            self.found.add(ImportsTooDeep(limit=limit, nested=nested, span=statement.span))
            return None
        try:
            return path, parse_source(read(path, shown(path)))
        except SpecError as error:
            self.found.extend(error.diagnostics)
        return None

    def _path(self, statement: ast.Import) -> Path | None:
        target = statement.target
        if isinstance(target, ast.Name):
            folder = Path(str(files(LIBRARY)))
            name, path = target.text, folder / f"{target.text}.attn"
        else:
            folder = self.open_files[-1].parent if self.open_files else Path.cwd()
            name, path = target.value, folder / target.value
        reason = _unreadable(path)
        if reason is None:
            return path.resolve()
        if isinstance(target, ast.Name):
            reason = "the library has no such file"
            candidates = library()
        else:
            candidates = nearby(path)
        self.found.add(
            MissingImport(file=name, reason=reason, candidates=candidates, span=statement.target.span)
        )
        return None


def library() -> tuple[str, ...]:
    """The names of the published patterns that are shipped, each a file to import."""
    return tuple(sorted(p.stem for p in Path(str(files(LIBRARY))).glob("*.attn")))


def _unreadable(path: Path) -> str | None:
    """Why a path cannot be imported."""
    if path.suffix != ".attn":
        return "imported files end in .attn"
    try:
        return None if path.is_file() else "there is no such file"
    except (OSError, ValueError):
        return "this is no path"


def nearby(path: Path) -> tuple[str, ...]:
    """Spec files beside a path, as they would be written in its place."""
    try:
        return tuple(sorted(p.name for p in path.parent.glob("*.attn")))[:100]
    except (OSError, ValueError):
        return ()


def read(path: Path, name: str) -> Source:
    """The source in a file. Raises SpecError if it cannot be read, or is no text."""
    try:
        with path.open("rb") as file:
            data = file.read(4 * limits.MAX_SOURCE + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise SpecError(UnreadableFile(file=name, reason=reason)) from None
    return decode(data, name)


def shown(path: Path) -> str:
    """A path relative to the working directory, where it is below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def alias(statement: ast.Import, found: Diagnostics) -> ast.Name | None:
    """The name that an import goes by."""
    if statement.alias is not None:
        return statement.alias
    if isinstance(statement.target, ast.Name):
        return statement.target
    stem = Path(statement.target.value).stem
    if stem.isascii() and stem.isidentifier() and stem not in RESERVED_WORDS:
        return ast.Name(stem, span=statement.target.span)
    found.add(NoImportName(file=statement.target.value, span=statement.target.span))
    return None


RESERVED_WORDS = frozenset(
    [
        "import",
        "as",
        "param",
        "input",
        "pattern",
        "where",
        "heads",
        "layers",
        "every",
        "and",
        "or",
        "not",
        "in",
        "true",
        "false",
        "_",
    ]
)
