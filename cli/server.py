"""``tailrace server``: a Prefect server in the background, so that local runs need not start one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson

if TYPE_CHECKING:
    from ..adapters.prefect.background import Server

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="A Prefect server in the background, for local runs without a wait.")


@app.command()
def start(
    port: Annotated[int, typer.Option(help="The port. Default: any that is free.", min=0, max=65535)] = 0,
    idle: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="End it when nobody asked it for so long. Default: never.", min=0.01),
    ] = None,
    json: AsJson = False,
) -> None:
    """Start the server, and wait until it is ready. One that runs already is told, and nothing else is done."""
    from ..adapters.prefect import background
    from .show import console, lines, print_json

    server, is_new = background.start(port=port, idle=idle and idle * 60)
    if json:
        print_json({**_facts(server), "started": is_new})
        return
    out = console()
    out.print("Local runs use this server now." if is_new else "It runs already.")
    out.print(lines([("Pages", server.ui), ("API", server.url), ("Log", background.log_file())]))
    out.print("\nEnd it by: tailrace server stop")
    chosen = os.environ.get("PREFECT_API_URL")
    if chosen:
        out.print(f"PREFECT_API_URL={chosen} is stronger, and is set here.", style="yellow")


@app.command()
def stop() -> None:
    """End the server. What it has recorded stays in its database. Nothing happens when none runs."""
    from ..adapters.prefect import background
    from .show import console

    ended = background.stop()
    console().print(f"The server at {ended.ui} has ended." if ended else "No server runs.")


@app.command()
def status(json: AsJson = False) -> None:
    """Say where the server is, since when, its version and database. Exit code 1 if it does not serve."""
    from ..adapters.prefect import background
    from .show import console, lines, print_json, styled, when

    server = background.find()
    state = _state(server)
    if json:
        print_json({"state": state, **(_facts(server) if server else {})})
    elif server is None:
        console().print("No server runs. Start one by: tailrace server start")
    else:
        facts = _facts(server)
        shown = [("State", styled(state)), ("Pages", server.ui), ("API", server.url), ("Process", server.pid)]
        shown += [("Since", when(server.since)), ("Prefect", server.version), ("Database", server.database)]
        shown += [("Runs", facts["runs"]), ("Log", facts["log"])]
        console().print(lines(shown))
    if state != "running":
        raise typer.Exit(1)


def _state(server: Server | None) -> str:
    from ..adapters.prefect import background

    if server is None:
        return "stopped"
    if not server.url:
        return "starting"
    return "running" if background.answers(server) else "not answering"


def _facts(server: Server) -> dict[str, Any]:
    from dataclasses import asdict

    from ..adapters.prefect import background

    runs = background.ask(server, "POST", "flow_runs/count") if server.url else None
    facts = {name: value for name, value in asdict(server).items() if name != "born"}
    return {**facts, "ui": server.ui, "runs": runs, "log": str(background.log_file())}
