"""Trees of tokens, as speculative decoding has them, as run-time inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def tree_order(parents: Any) -> dict[str, npt.NDArray[np.int32]]:
    """The inputs ``number`` and ``last`` of the shipped spec `tree_decode`, int32 [n] both.

    ``parents``: int [n], for each token the position of its parent, which comes before it; −1 at a root. A
    prefix is a chain: −1, 0, 1, … ``number`` is a token's place when the trees are walked depth first,
    ``last`` the largest among it and its descendants: j is i or an ancestor of i exactly where
    ``number[j] <= number[i] <= last[j]``. Raises SpecError where a parent does not come before its child.
    """
    import numpy as np

    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import BadCall

    found = np.asarray(parents)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        reason = f"an integer array [n] is needed, not {found.dtype}{list(found.shape)}"
        raise SpecError(BadCall(argument="parents", reason=reason))
    late = np.flatnonzero((found >= np.arange(len(found))) | (found < -1))
    if len(late):
        reason = f"the parent of token {late[0]} is {found[late[0]]}"
        advice = "a parent comes before its child, and a root has −1"
        raise SpecError(BadCall(argument="parents", reason=reason, advice=advice))
    size = np.ones(len(found) + 1, np.int64)  # of each token's subtree; the last is of all trees
    for token in range(len(found) - 1, -1, -1):
        size[found[token]] += size[token]
    following = np.zeros(len(found) + 1, np.int64)  # the number of a token's next child
    number = np.zeros(len(found), np.int32)
    for token, parent in enumerate(found):
        number[token] = following[parent]
        following[parent] += size[token]
        following[token] = number[token] + 1
    return {"number": number, "last": (number + size[:-1] - 1).astype(np.int32)}
