"""Whether an input can be reduced together with the first one (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distsum import dtypes

if TYPE_CHECKING:
    from distsum.formats.base import Layout
    from distsum.reductions import Reduction


def disagreement(layout: Layout, first: Layout, reduction: Reduction) -> str | None:
    """Return what sets an input apart from the first one, or None where both can be reduced together.

    Shape and memory order must be the same. Another dtype or byte order is welcome as long as its numbers are
    accumulated in the same dtype, so that float32 and float64 files, or both byte orders, may be mixed.
    """
    if layout.shape != first.shape:
        return f"shape {layout.shape}, where the first input has {first.shape}"
    if layout.fortran != first.fortran:
        found, wanted = ("Fortran", "C") if layout.fortran else ("C", "Fortran")
        return f"{found} memory order, where the first input has {wanted} order"
    same_kind = (dtypes.kind(layout.dtype) == "c") == (dtypes.kind(first.dtype) == "c")
    if layout.dtype == first.dtype or (same_kind and reduction.planes(layout.dtype) == reduction.planes(first.dtype)):
        return None
    return f"dtype {layout.dtype}, where the first input has {first.dtype}"
