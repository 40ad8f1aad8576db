"""E4xx: what is passed when the spec is used. E5xx: backends and limits."""

from __future__ import annotations

from patterndsl.diagnostics.base import Diagnostic, did_you_mean, listed, shown


class MissingInput(Diagnostic):
    code = "E401"
    title = "a run-time input is missing"
    about = """
The spec declares `input` arrays; each is passed by name: `attention(q, k, v, doc=ids)`, `mask(n,
inputs={…})`.
"""
    wrong = ">>> patterndsl.parse('input doc: token\\npattern main = same(doc)').mask(4)"
    right = (
        ">>> patterndsl.parse('input doc: token\\npattern main = same(doc)').mask(4, inputs={'doc': "
        "[0, 0, 1, 1]})"
    )
    name: str
    kind: str = "token"

    def message(self) -> str:
        return f"the input {shown(self.name)} is missing"

    def help(self) -> str | None:
        name = self.name[:40]
        made = "packed" if self.kind == "token" else "random"
        shell = f"`--input {name}=FILE.npy` (or `{name}={made}:16`) on the command line"
        return f'pass it: `attention(q, k, v, {name}=…)`, `mask(n, inputs={{"{name}": …}})`, or {shell}'


class UnexpectedInput(Diagnostic):
    code = "E402"
    title = "an input that the spec does not declare"
    about = "An array is passed under a name that no `input` of the spec has. It would have no effect."
    wrong = ">>> patterndsl.parse('causal').mask(4, inputs={'doc': [0, 0, 1, 1]})"
    right = ">>> patterndsl.parse('causal').mask(4)"
    name: str
    candidates: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    """Other names that the call knows."""

    def message(self) -> str:
        return f"the spec has no input {shown(self.name)}"

    def help(self) -> str | None:
        close = did_you_mean(self.name, self.candidates + self.arguments)
        if close:
            return close
        if not self.candidates:
            others = f"; other arguments are {listed(shown(a) for a in self.arguments)}"
            return "it has no inputs" + (others if self.arguments else "")
        return f"it has {listed(shown(c) for c in self.candidates)}"


class InputShape(Diagnostic):
    code = "E403"
    title = "an input of the wrong shape"
    about = """
An `input x: token` holds one value for each key: shape [n], or [B, n] for a batch. An `input x: centroids`
holds the k vectors of a `cluster(k, …)`: [k, head_dim] for all query heads, or [heads, k, head_dim].
"""
    wrong = (
        ">>> patterndsl.parse('input doc: token\\npattern main = same(doc)').mask(4, inputs={'doc': "
        "[0, 0, 1]})"
    )
    right = (
        ">>> patterndsl.parse('input doc: token\\npattern main = same(doc)').mask(4, inputs={'doc': "
        "[0, 0, 1, 1]})"
    )
    name: str
    shape: tuple[int, ...]
    expected: str

    def message(self) -> str:
        return f"the input {shown(self.name)} has shape {list(self.shape)}, expected {self.expected}"


class InputDtype(Diagnostic):
    code = "E404"
    title = "an input of the wrong type"
    about = (
        "Inputs of kind `token` are arrays of integers, those of kind `centroids` of floating-point numbers."
    )
    wrong = (
        ">>> patterndsl.parse('input doc: token\\npattern main = same(doc)').mask(2, inputs={'doc': "
        "[0.5, 1.0]})"
    )
    right = (
        ">>> patterndsl.parse('input doc: token\\npattern main = same(doc)').mask(2, inputs={'doc': [0, 1]})"
    )
    name: str
    dtype: str
    expected: str = "integers"

    def message(self) -> str:
        return f"the input {shown(self.name)} has dtype {self.dtype}, expected {self.expected}"


class BadCall(Diagnostic):
    code = "E405"
    title = "an argument of the Python API that makes no sense"
    about = """
Lengths are positive, heads and layers exist, arrays fit together; the message says which argument does
not.
"""
    wrong = ">>> patterndsl.parse('causal').mask(-1)"
    right = ">>> patterndsl.parse('causal').mask(16)"
    argument: str
    reason: str
    advice: str | None = None

    def message(self) -> str:
        return f"{shown(self.argument)}: {self.reason}"

    def help(self) -> str | None:
        return self.advice


class ChosenFromData(Diagnostic):
    code = "E406"
    title = "a mask that depends on q and k"
    about = """
`select`, `lsh`, `cluster` and the like choose from the q and k of a call what they keep. A mask, or a
picture of it, can only be had for given q and k.
"""
    wrong = ">>> patterndsl.parse('causal & select(4, 64, among=causal)').mask(1024)"
    right = ">>> patterndsl.parse('causal & select(4, 64, among=causal)').mask(1024, operands=(q, k))"
    pattern: str

    def message(self) -> str:
        return f"{shown(self.pattern)} is chosen from the data, q and k"

    def help(self) -> str | None:
        return (
            "pass them, `mask(n, operands=(q, k))`; `patterndsl run` tries a spec on random ones, and "
            "`patterndsl analyze` says how much it keeps at most"
        )


class UnsupportedByBackend(Diagnostic):
    code = "E501"
    title = "the backend cannot run this spec"
    about = """
A backend that is named explicitly either runs the spec as asked or says why not; nothing else is used in
its place. `backend="auto"` picks one that can.
"""
    wrong = ">>> patterndsl.compile('causal', mesh=mesh, seq_axis='sequence')"
    right = ">>> patterndsl.compile('causal')"
    backend: str
    reason: str
    advice: str | None = None

    def message(self) -> str:
        return f"the backend {shown(self.backend)} cannot run this: {self.reason}"

    def help(self) -> str | None:
        return self.advice or 'backend="auto" picks one that can'


class UnknownBackend(Diagnostic):
    code = "E502"
    title = "no backend has this name"
    about = "The message lists the backends that are installed."
    wrong = ">>> patterndsl.compile('causal', backend='cuda')"
    right = ">>> patterndsl.compile('causal', backend='xla')"
    name: str
    candidates: tuple[str, ...]

    def message(self) -> str:
        return f"unknown backend {shown(self.name)}"

    def help(self) -> str | None:
        return (
            did_you_mean(self.name, self.candidates)
            or f"there are {listed(shown(c) for c in self.candidates)}"
        )


class PlanTooLarge(Diagnostic):
    code = "E503"
    title = "a plan that would not fit in memory"
    about = """
The tables of a plan take memory in proportion to the tiles attended. Their size is predicted before they
are built, and refused beyond a limit.
"""
    wrong = ">>> patterndsl.compile('random(64, block=1)').plan(10**9)"
    right = ">>> patterndsl.compile('random(8, block=128)').plan(10**6)"
    what: str
    needed: int
    limit: int
    advice: str = "larger blocks, a smaller n, or a sparser pattern need less"

    def message(self) -> str:
        return f"{self.what} would take {sized(self.needed)}; the limit is {sized(self.limit)}"

    def help(self) -> str | None:
        return self.advice


class SpecTooLarge(Diagnostic):
    code = "E504"
    title = "definitions that expand too far"
    about = """
Patterns are inlined where they are used, and params put in. A few lines can so stand for millions of nodes,
when each definition uses the one before several times; beyond 100,000 the spec is refused.
"""
    wrong = "$ patterndsl check f.attn  # pattern b(m) = a(m) | a(m + 1), c(m) = b(m) | b(m + 1), …"
    right = "pattern a(m) = local(m) ^ strided(m + 1)\npattern main = a(1)"
    limit: int

    def message(self) -> str:
        return f"the spec expands to more than {self.limit} nodes"

    def help(self) -> str | None:
        return (
            "definitions that use the one before several times, level upon level, multiply: use fewer levels"
        )


class NotStreamable(Diagnostic):
    code = "E506"
    title = "a pattern that cannot be computed piece by piece"
    about = """
`attention(q, k, v, state=…)` takes a sequence piece by piece and carries what later pieces read of earlier
ones, in a state of fixed size. For that no query may read a key after it; keys must be within a bounded
distance behind the query, but for a few at the beginning of the sequence; and the pattern must look the same
further on, whatever the length of the whole. All of this is proved, not assumed.
"""
    wrong = ">>> patterndsl.compile('causal').initial_state(num_kv_heads=4, head_dim=64)"
    right = ">>> patterndsl.compile('causal & local(512)').initial_state(num_kv_heads=4, head_dim=64)"
    pattern: str
    reason: str
    advice: str

    def message(self) -> str:
        return f"{shown(self.pattern)} cannot be computed piece by piece: {self.reason}"

    def help(self) -> str | None:
        return self.advice


def sized(count: int) -> str:
    """A number of bytes, readable."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB" if value < 1024 else "more than 1024 PiB"
