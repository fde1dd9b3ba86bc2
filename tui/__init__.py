"""The terminal interface: a Textual application over the events of a run (to come). Importable as `distsum.tui`."""
