"""Stores: where inputs, partials and results lie."""
