"""Sparse tables of kept (row, column) pairs: patterns that are drawn or coarsened rather than computed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt


class Table:
    """For each row, the columns kept, sorted; rows padded with ``columns`` (one past the last).

    ``entries``: int32 [rows, width]. A row outside 0 … rows − 1 keeps nothing. Memory is in proportion to the
    widest row times the rows. Equal tables compare equal, so that plans over them can be cached.
    """

    def __init__(self, entries: npt.NDArray[np.int32], columns: int) -> None:
        self.entries = np.ascontiguousarray(entries, dtype=np.int32)
        self.entries.setflags(write=False)
        self.columns = columns
        self._key = (self.entries.shape, self.entries.tobytes(), columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"table<{self.entries.shape[0]}x{self.columns}, width {self.entries.shape[1]}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.entries, self.columns)

    def contains(self, row: Any, column: Any, xp: Any) -> Any:
        """Whether the table keeps (row, column), elementwise, in NumPy or JAX (``xp``)."""
        rows, width = self.entries.shape
        if rows == 0 or width == 0:
            return xp.zeros(xp.broadcast_shapes(xp.shape(row), xp.shape(column)), bool)
        if xp is np:  # a search takes no memory for each entry of a row
            keys, stride = self.keys
            wanted = row * stride + column
            found = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
            return found & (row >= 0) & (row < rows) & (column >= 0) & (column < self.columns)
        row, column = xp.asarray(row), xp.asarray(column)
        inside = (row >= 0) & (row < rows) & (column < self.columns)
        listed = xp.asarray(self.entries)[xp.clip(row, 0, rows - 1)]
        return inside & xp.any(listed == column[..., None], axis=-1)

    @functools.cached_property
    def pyramid(self) -> list[tuple[npt.NDArray[np.int64], int]]:
        """For each level j, the sorted keys ``(row >> j)·columns + column`` of the pairs kept, and ``columns
        + 1``.

        Lets a box of many rows be refused after one look at few coarse rows.
        """
        levels = [self.keys]
        for _ in range(max(self.entries.shape[0] - 1, 1).bit_length()):
            keys, stride = levels[-1]
            row, column = np.divmod(keys, stride)
            keys = np.sort((row >> 1) * stride + column)  # np.unique hashes, which is slow on keys like these
            levels.append((keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys, stride))
        return levels

    @functools.cached_property
    def keys(self) -> tuple[npt.NDArray[np.int64], int]:
        """The sorted keys ``row·(columns + 1) + column`` of the pairs kept, and ``columns + 1``."""
        rows, stride = self.entries.shape[0], self.columns + 1
        keys = np.arange(rows, dtype=np.int64)[:, None] * stride + self.entries
        return keys[self.entries < self.columns], stride
