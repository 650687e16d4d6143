"""The ``tailrace`` command: what a person or a shell script asks of pipelines, runs and artifacts."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command with the process's arguments.

    Exits with 0 (success), 1 (a step failed), 2 (usage or configuration) or 130 (interrupted).
    """
    import sys

    from .app import app

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a mark that a terminal lacks is no error
    app(prog_name="tailrace")
