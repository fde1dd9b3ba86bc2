"""Actors: what decides. Each has one synchronous ``receive``, and a context from its system to act through."""
