"""The canonical tree, straight from its definition in ``distsum/tree.py``: slow, recursive, and read at a glance."""

import numpy as np


def reference_reduce(arrays, fan_in, reduction):
    """Return the mean, sum, min or max of arrays of one dtype, added in the order of the canonical tree.

    An input that is left out is None: it keeps its place, and the mean divides by how many there are without it.
    Floats are added in float64 or complex128. Integers are, for a mean; their sum, min and max are exact, as int64 or
    uint64 (the caller sees to it that they fit).
    """
    there = [array for array in arrays if array is not None]
    kind = there[0].dtype.kind
    if kind in "biu" and reduction != "mean":
        accumulator = np.uint64 if kind == "u" else np.int64
    else:
        accumulator = np.complex128 if kind == "c" else np.float64
    add = {"mean": np.add, "sum": np.add, "min": np.minimum, "max": np.maximum}[reduction]

    def node(level, index):
        if level == 0:
            return arrays[index]
        width = -(-len(arrays) // fan_in ** (level - 1))
        children = (node(level - 1, child) for child in range(index * fan_in, min(width, (index + 1) * fan_in)))
        first, *rest = [child for child in children if child is not None] or [None]
        if first is None:
            return None
        value = first.astype(accumulator)
        for other in rest:
            value = add(value, other.astype(accumulator))
        return value

    level = 0
    while fan_in**level < len(arrays):
        level += 1
    with np.errstate(all="ignore"):
        root = node(level, 0).astype(accumulator)
        return root / len(there) if reduction == "mean" else root
