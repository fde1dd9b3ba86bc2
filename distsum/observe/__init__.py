"""What can be seen of a run: events folded into frozen snapshots, with no terminal and no Textual in it."""
