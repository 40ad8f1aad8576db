"""`global`, `columns`, `rows`, `sinks`."""

from __future__ import annotations

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Size, TokenList, in_tokens, pattern, token_count
from patterndsl.plan import orders


@pattern
class Global(Pattern):
    """Global tokens, in both directions: every query sees them, and they see every key."""

    name = "global"
    growth = "n·g"
    source = "Beltagy et al. 2020 (Longformer), arXiv:2004.05150; Ainslie et al. 2020 (ETC), arXiv:2004.08483"
    examples = ("global(tokens=[0])", "global(tokens=[0, 5:8, ::16])")

    tokens: TokenList

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import tokens_in_range

        tokens_in_range(self, self.tokens, n)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return in_tokens(k, self.tokens, n) | in_tokens(q, self.tokens, n)

    def members(self, n: int) -> tuple[Node, ...]:
        return Columns(self.tokens), Rows(self.tokens)

    def pairs(self, n: Expr) -> Expr:
        return 2 * n * token_count(self.tokens, n)


@pattern
class Columns(Pattern):
    """Keys that every query sees."""

    name = "columns"
    growth = "n·g"
    source = "Child et al. 2019 (Sparse Transformer), arXiv:1904.10509"
    examples = ("columns([0, 2])", "columns([-1])")

    tokens: TokenList

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import tokens_in_range

        tokens_in_range(self, self.tokens, n)

    def layouts(self, n: int) -> tuple[orders.Order, ...]:
        steps = [
            item[2].number for item in self.tokens.items if isinstance(item, tuple) and item[2] is not None
        ]
        return (
            *(orders.Columns(step) for step in steps if step is not None and 1 < step < n),
            orders.Gathered(),
        )

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return in_tokens(k, self.tokens, n)

    def pairs(self, n: Expr) -> Expr:
        return n * token_count(self.tokens, n)


@pattern
class Rows(Pattern):
    """Queries that see every key."""

    name = "rows"
    growth = "n·g"
    source = "Ainslie et al. 2020 (ETC), arXiv:2004.08483"
    examples = ("rows([0, 2])",)

    tokens: TokenList

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import tokens_in_range

        tokens_in_range(self, self.tokens, n)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return in_tokens(q, self.tokens, n)

    def pairs(self, n: Expr) -> Expr:
        return n * token_count(self.tokens, n)


@pattern
class Sinks(Pattern):
    """The first m keys: `causal & (sinks(4) | local(1024))` is StreamingLLM, `causal | sinks(m)` a prefix
    LM."""

    name = "sinks"
    growth = "n·m"
    source = "Xiao et al. 2023 (StreamingLLM), arXiv:2309.17453"
    examples = ("sinks(4)",)

    m: Size

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return k < self.m

    def pairs(self, n: Expr) -> Expr:
        return n * self.m
