"""The ``tailrace`` command: what a person or a shell script asks of pipelines, runs and artifacts."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command with the process's arguments.

    Exits with 0 (success), 1 (a step failed), 2 (usage or configuration) or 130 (interrupted).
    """
    from .app import app

    app(prog_name="tailrace")
