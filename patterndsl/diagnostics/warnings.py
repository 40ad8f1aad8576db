"""W0xx: specs that are allowed but hardly meant. N0xx: what is worth knowing."""

from __future__ import annotations

from patterndsl.diagnostics.base import Diagnostic, shown


class KeepsNothing(Diagnostic):
    code = "W001"
    severity = "warning"
    title = "a pattern that keeps nothing"
    about = "No query attends to any key, for every n or for the n given. All outputs would be zero."
    wrong = "causal & ~causal"
    right = "causal"
    pattern: str
    n: int | None = None

    def message(self) -> str:
        when = "for any n" if self.n is None else f"at n = {self.n}"
        return f"{shown(self.pattern)} keeps nothing {when}"


class RowsWithoutKeys(Diagnostic):
    code = "W002"
    severity = "warning"
    title = "queries that attend to nothing"
    about = """
Rows of the mask without a key give zeros and a log-sum-exp of −inf. Often the query itself was meant to
be kept.
"""
    wrong = "causal & ~self"
    right = "causal"
    query: int
    n: int
    count: int | None = None

    def message(self) -> str:
        if self.count is None or self.count == 1:
            return f"query {self.query} attends to nothing at n = {self.n}"
        return f"{self.count} queries attend to nothing at n = {self.n}, query {self.query} the first"

    def help(self) -> str | None:
        return "add `| self` to let every query attend to its own token"


class SelectWithoutAmong(Diagnostic):
    code = "W003"
    severity = "warning"
    title = "blocks chosen among future ones"
    about = """
`select` takes the k blocks with the largest scores among those that `among` keeps, by default all. Under
`causal`, blocks of the future then compete, win, and are removed by `causal` afterwards.
"""
    wrong = "causal & select(4, 64)"
    right = "causal & select(4, 64, among=causal)"

    def message(self) -> str:
        return "`select` under `causal` lets future blocks compete"

    def help(self) -> str | None:
        return "write `among=causal`"


class ClustersSeeFuture(Diagnostic):
    code = "N002"
    severity = "note"
    title = "clusters that depend on the future"
    about = """
A centroid of `cluster` takes the best of all positions. Under `causal`, as in the published model, no query
sees a later token, but later tokens take places in the clusters that earlier ones then do not get. What a
model answers for a whole sequence and for its beginning so differs a little.
"""
    wrong = "causal & cluster(16, 64, centroids=mu)"
    right = "cluster(16, 64, centroids=mu)"

    def message(self) -> str:
        return "which tokens a centroid takes depends on later ones, though `causal` masks them"


class TokenSeenTwice(Diagnostic):
    code = "N001"
    severity = "note"
    title = "tokens seen both by themselves and under a summary"
    about = """
In a union, tokens and summaries share one softmax, so a token that another member keeps counts once by
itself and once in the summary over it. That may be meant; a larger `leaf` gives an exact near field
instead.
"""
    wrong = "local(128) | hierarchical(4)"
    right = "hierarchical(4, leaf=128)"
    query: int | None = None
    token: int | None = None
    instead: str = ""

    def message(self) -> str:
        if self.query is None or self.token is None:
            return "some tokens are seen both by themselves and under a summary"
        return f"query {self.query} sees token {self.token} both by itself and under a summary"

    def help(self) -> str | None:
        return f"{shown(self.instead)} sees each token once" if self.instead else None
