"""Diagnostics as text, in the form that rustc made familiar."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from patterndsl.diagnostics.base import Diagnostic, Label
from patterndsl.syntax.source import TAB_WIDTH, Source, Span

MAX_SHOWN = 20
MAX_WIDTH = 110  # of a quoted source line

_COLOURS = {"error": "1;31", "warning": "1;33", "note": "1;36", "bold": "1", "frame": "1;34"}


def render(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """All diagnostics as one text, without a final newline. More than 20 are counted instead of shown."""
    every = list(diagnostics)
    blocks = [render_one(d, color) for d in every[:MAX_SHOWN]]
    if len(every) > MAX_SHOWN:
        blocks.append(f"... and {len(every) - MAX_SHOWN} more")
    return "\n\n".join(blocks)


def render_one(diagnostic: Diagnostic, color: bool = False) -> str:
    """One diagnostic: headline, quoted lines with carets, notes and help."""

    def paint(text: str, style: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if color and text else text

    severity = diagnostic.severity
    head = paint(f"{severity}[{diagnostic.code}]", severity) + paint(
        f": {printable(diagnostic.message())}", "bold"
    )
    lines = [head]
    labels = [] if diagnostic.span is None else [(Label(diagnostic.span, diagnostic.label()), True)]
    labels += [(label, False) for label in diagnostic.secondary()]
    numbers = [label.span.source.location(label.span.start)[0] for label, _ in labels]
    margin = len(str(max(numbers))) if numbers else 1
    bar = paint(f"{'':{margin}} |", "frame")

    for i, source in enumerate(dict.fromkeys(label.span.source for label, _ in labels)):
        here = [(label, primary) for label, primary in labels if label.span.source is source]
        arrow = "-->" if i == 0 else ":::"
        lines.append(paint(f"{'':{margin}}{arrow} ", "frame") + printable(str(here[0][0].span)))
        lines.append(bar)
        by_line: dict[int, list[tuple[Label, bool]]] = {}
        for label, primary in sorted(here, key=lambda item: item[0].span.start):
            by_line.setdefault(source.location(label.span.start)[0], []).append((label, primary))
        previous = None
        for number, marks in by_line.items():
            if previous is not None and number > previous + 1:
                lines.append(paint("...", "frame"))
            previous = number
            text, window = quoted(source, number, marks[0][0].span)
            lines.append(paint(f"{number:>{margin}} |", "frame") + f" {text}".rstrip())
            for label, primary in marks:
                before, width = extent(source, number, label.span, window)
                mark = paint(f"{('^' if primary else '-') * width} {printable(label.text)}".rstrip(), severity
                             if primary else "frame")  # fmt: skip
                lines.append(f"{bar} {'':{before}}{mark}")
    tail = f"{'':{margin}} = " if labels else "  = "
    for note in diagnostic.notes():
        lines.append(paint(tail, "frame") + "note: " + printable(note))
    help_text = diagnostic.help()
    if help_text:
        lines.append(paint(tail, "frame") + "help: " + printable(help_text))
    return "\n".join(lines)


def quoted(source: Source, number: int, span: Span) -> tuple[str, tuple[int, int]]:
    """A source line as printed, cut around the span if it is long, and the offsets of what is left."""
    line = source.line(number)
    start, stop = 0, len(line)
    if stop > MAX_WIDTH:
        column = span.start - source.line_starts[number - 1]
        start = max(0, min(column - MAX_WIDTH // 3, len(line) - MAX_WIDTH))
        stop = start + MAX_WIDTH
    text = expand(line[start:stop])
    return ("…" if start else "") + text + ("…" if stop < len(line) else ""), (start, stop)


def extent(source: Source, number: int, span: Span, window: tuple[int, int]) -> tuple[int, int]:
    """Columns before the caret, and the number of carets, for a span on a line of which a window is shown."""
    line, line_start = source.line(number), source.line_starts[number - 1]
    start, stop = window
    first = min(max(span.start - line_start, start), stop)
    last = max(first, min(span.end - line_start, stop))
    before = width(expand(line[start:first])) + (1 if start else 0)
    return before, max(1, width(expand(line[start:last])) - width(expand(line[start:first])))


def expand(text: str) -> str:
    return printable(text.expandtabs(TAB_WIDTH))


def width(text: str) -> int:
    """Terminal columns that a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def printable(text: str) -> str:
    """The text without control characters: a spec must not steer the terminal that shows its errors."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
