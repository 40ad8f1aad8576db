"""Slot tables in a form that two sides can compare, whatever the order of their columns."""


def by_slot(counts, table, overlapping=False):
    """The columns that anyone sees, by (level, start, stop). ``overlapping``: slots that nobody sees may be
    listed twice, as those of `tglobal`'s two kinds of chunk."""
    listed, seen = set(), {}
    for column, slot in zip(counts.T, table, strict=True):
        key = tuple(int(x) for x in slot)
        if not overlapping or column.any():
            assert key not in listed, f"slot {key} is listed twice"
            listed.add(key)
        if column.any():
            seen[key] = column.tolist()
    return seen


def found_by_slot(slots, overlapping=False):
    """The same of a `patterndsl.spec.Slots`."""
    return by_slot(slots.counts, list(zip(slots.level, slots.start, slots.stop, strict=True)), overlapping)
