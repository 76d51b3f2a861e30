"""The command `repetita`: parse, call, print; a user's mistake is one sentence and exit code 2."""

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line and exits with its code."""
    from repetita.cli.app import app
    from repetita.cli.options import inert
    from repetita.errors import RepetitaError

    try:
        app()
    except RepetitaError as error:
        sys.stderr.write(f"repetita: {inert(str(error))}\n")
        sys.exit(error.exit_code)
