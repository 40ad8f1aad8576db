"""Slot tables in a form that two sides can compare, whatever the order of their columns."""


def by_slot(counts, table):
    """The columns that anyone sees, by (level, start, stop)."""
    seen = {}
    for column, slot in zip(counts.T, table, strict=True):
        key = tuple(int(x) for x in slot)
        if column.any():
            assert key not in seen, f"slot {key} is listed twice"
            seen[key] = column.tolist()
    return seen


def found_by_slot(slots):
    """The same of a `patterndsl.spec.Slots`."""
    return by_slot(slots.counts, list(zip(slots.level, slots.start, slots.stop, strict=True)))
