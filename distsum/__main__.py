"""``python -m distsum`` and the ``distsum`` command."""

import sys


def main() -> None:
    """Run the command line, and exit with its code."""
    from distsum.cli.app import run_command

    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
