"""The terminal interface: a Textual application over the views of `distsum.observe`. Importable as `distsum.tui`."""
