"""Benchmarks: one file a question. ``just bench`` runs them all, ``just bench NAME`` some."""
