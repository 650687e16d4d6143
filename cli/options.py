"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["ArtifactId", "AsJson", "Config", "Limit", "Stack", "Target", "seconds"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE[:NAME]",
        help="A Python file, or a name: flows/NAME.py, pipelines/NAME.py or NAME.py. "
        ":NAME picks one of several pipelines in it.",
        show_default=False,
    ),
]
ArtifactId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An artifact: its id or the beginning of that, its URI, its digest, or RUN/STEP/OUTPUT.",
        show_default=False,
    ),
]
Stack = Annotated[str | None, typer.Option("--stack", metavar="NAME", help="The stack. Default: the active one.")]
Config = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="The configuration. Default: the nearest tailrace.yaml upward."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="The most to list, newest first.")]


def seconds(text: str) -> float:
    """The seconds of ``90s``, ``15m``, ``1h``, ``30d`` or ``2w``, of an option with this ``parser``."""
    try:
        found = float(text[:-1]) * _UNITS[text[-1:]]
    except (KeyError, ValueError):
        raise typer.BadParameter(f"{text!r} is no duration. Write 90s, 15m, 1h, 30d or 2w.") from None
    if not 0 <= found < float("inf"):
        raise typer.BadParameter(f"{text!r} is negative or has no end.")
    return found
