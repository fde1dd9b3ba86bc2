"""``python -m distsum`` and the ``distsum`` command."""

import sys


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        from distsum.cli.app import run_command
    except KeyboardInterrupt:
        sys.exit(130)  # Ctrl-C before there was anything to interrupt
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
