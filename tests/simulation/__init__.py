"""Actors under faults: runs that are drawn from seeds, and what must hold in each of them."""
