"""``python -m distsum`` and the ``distsum`` command."""

import sys


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(130)  # during the imports; a command tells of it itself


def _run() -> int:
    import gc
    import signal

    from distsum.cli import streams
    from distsum.worker.launch import launch_early, take_early

    streams.prepare()
    launch_early(sys.argv[1:])
    try:
        from distsum.cli.app import run_command

        return run_command(sys.argv[1:])
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all that is left is to end
        take_early(0)
        gc.freeze()  # Or the interpreter would go through all objects of all libraries again, for a tenth of a second.


if __name__ == "__main__":
    main()
