"""``python -m distsum`` and the ``distsum`` command."""

import sys


def main() -> None:
    """Run the command line, and exit with its code."""
    from distsum.cli import streams
    from distsum.worker.launch import launch_early, take_early

    streams.prepare()
    launch_early(sys.argv[1:])
    try:
        from distsum.cli.app import run_command

        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130  # during the imports; a command tells of it itself
    finally:
        take_early(0)
    sys.exit(code)


if __name__ == "__main__":
    main()
