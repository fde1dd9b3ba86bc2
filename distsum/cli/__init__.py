"""The command line: the place that reads settings and picks what runs."""
