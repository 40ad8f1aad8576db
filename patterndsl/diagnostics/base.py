"""What every diagnostic has: a code, a message, spans, help; and the exception that carries them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import indent
from typing import Any, ClassVar, Literal, Self, dataclass_transform

from patterndsl.syntax.source import Span

Severity = Literal["error", "warning", "note"]

_REGISTRY: dict[str, type[Diagnostic]] = {}
_MAX_SHOWN_NAME = 60


@dataclass(frozen=True)
class Label:
    """A span with the remark printed under it."""

    span: Span
    text: str


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record:
    """A frozen dataclass with keyword arguments, by hand.

    Real dataclasses compile their methods when they are defined, and seventy of them would take a fifth of
    the time in which `patterndsl check` must be done.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = (name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar"))
        cls._fields = (*cls._fields, *own)

    def __init__(self, **values: Any) -> None:
        for name in self._fields:
            if name not in values and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs {name}")
        for name, value in values.items():
            if name not in self._fields:
                raise TypeError(f"{type(self).__name__} has no field {name}")
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a diagnostic does not change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({given})"


class Diagnostic(Record):
    """One thing to tell the reader of a spec. Each kind is a subclass with a stable ``code``.

    Fields are plain data, so that any layer can raise one; ``span`` is None where there is no source text
    (a pattern built in Python). ``title`` names the kind, ``message`` the case at hand. ``about`` explains
    the kind at length; ``wrong`` is the smallest thing that causes it and ``right`` the same, mended: spec
    text, or Python where it starts with ``>>>``, or a command where it starts with ``$``.
    """

    code: ClassVar[str] = ""
    severity: ClassVar[Severity] = "error"
    title: ClassVar[str] = ""
    about: ClassVar[str] = ""
    wrong: ClassVar[str] = ""
    right: ClassVar[str] = ""

    span: Span | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("code", "title", "about", "wrong", "right"):
            if not getattr(cls, name):
                raise TypeError(f"diagnostic {cls.__name__} has no {name}")
        if cls.code in _REGISTRY:
            raise TypeError(f"{cls.code} is both {_REGISTRY[cls.code].__name__} and {cls.__name__}")
        _REGISTRY[cls.code] = cls

    def at(self, span: Span | None) -> Self:
        """The same diagnostic, placed at a span unless it has one."""
        if self.span is not None or span is None:
            return self
        return type(self)(**{**dict(zip(self._fields, self._values(), strict=True)), "span": span})

    def message(self) -> str:
        """What is wrong, in one line."""
        return self.title

    def label(self) -> str:
        """The remark under the primary span."""
        return ""

    def secondary(self) -> tuple[Label, ...]:
        """Other places that belong to it."""
        return ()

    def notes(self) -> tuple[str, ...]:
        return ()

    def help(self) -> str | None:
        """What to do about it."""
        return None

    @classmethod
    def explain(cls) -> str:
        """The long text that ``patterndsl explain`` prints."""
        wrong, right = (indent(text.strip("\n"), "    ") for text in (cls.wrong, cls.right))
        kind = "" if cls.severity == "error" else f" ({cls.severity})"
        return (
            f"{cls.code}: {cls.title}{kind}\n\n{cls.about.strip()}\n\n"
            f"For example\n\n{wrong}\n\nInstead\n\n{right}\n"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "message": self.message(),
            "span": span_json(self.span),
            "label": self.label(),
            "secondary": [{"span": span_json(s.span), "label": s.text} for s in self.secondary()],
            "notes": list(self.notes()),
            "help": self.help(),
        }


class SpecError(Exception):
    """A spec, or the way it is used, is wrong. ``diagnostics`` says what and where; ``str()`` prints them."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (
            (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        )
        super().__init__(self.diagnostics)

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(d.code for d in self.diagnostics)

    def __str__(self) -> str:
        from patterndsl.diagnostics.render import (
            render,
        )  # here, as a rendering is needed only when one is shown

        return render(self.diagnostics)

    def to_json(self) -> list[dict[str, Any]]:
        return [d.to_json() for d in self.diagnostics]


class Diagnostics:
    """Collects diagnostics, so that one run reports several. Repeated ones are kept once."""

    def __init__(self) -> None:
        self._found: dict[Diagnostic, None] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        self._found[diagnostic] = None

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self._found if d.severity == "error")

    def raise_if_errors(self) -> None:
        """Raise SpecError with the errors, in the order of the text, if there are any."""
        if self.errors:
            raise SpecError(sorted(self.errors, key=_position))


def _position(diagnostic: Diagnostic) -> tuple[str, int]:
    span = diagnostic.span
    return ("", 0) if span is None else (span.source.name, span.start)


def registry() -> dict[str, type[Diagnostic]]:
    """Every kind of diagnostic, by its code, in the order of the codes."""
    return dict(sorted(_REGISTRY.items()))


def span_json(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    line, column = span.source.location(span.start)
    end_line, end_column = span.source.location(span.end)
    return {
        "file": span.source.name,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "start": span.start,
        "end": span.end,
    }


def shown(name: str) -> str:
    """A name or token as messages quote it: in backquotes, cut if it is very long."""
    cut = name if len(name) <= _MAX_SHOWN_NAME else name[: _MAX_SHOWN_NAME - 1] + "…"
    return f"`{cut}`"


def listed(names: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    names = list(names)
    return (
        names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}" if names else "nothing"
    )


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """``did you mean `local`?``, or None where nothing is close."""
    if len(name) > _MAX_SHOWN_NAME:
        return None  # comparing takes time in proportion to the length
    lower = {c.lower(): c for c in candidates}
    close = difflib.get_close_matches(name.lower(), list(lower), n=2, cutoff=0.6)
    if not close:
        return None
    return f"did you mean {listed((shown(lower[c]) for c in close), 'or')}?"
