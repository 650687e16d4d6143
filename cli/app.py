"""The command's root: its groups, its options, and how errors are told."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..core.errors import (
    AmbiguousName,
    ArtifactNotFound,
    ConfigError,
    InvalidKey,
    LoadError,
    MissingExtra,
    PipelineError,
    RunConflict,
    RunNotFound,
    TailraceError,
)
from . import artifacts, cache, catalog, dags, doctor, explain, gc, init, lineage, run, runs, server, stacks

__all__ = ["app"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

_USAGE = (
    AmbiguousName,
    ArtifactNotFound,
    ConfigError,
    InvalidKey,
    MissingExtra,
    PipelineError,
    RunConflict,
    RunNotFound,
)


class Commands(TyperGroup):
    """The groups and commands; errors that Tailrace raises on purpose are told in one place, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for, and turn what it raises into an exit code."""
        try:
            return super().invoke(ctx)
        except LoadError as error:
            from .trouble import trimmed

            _tell(f"{trimmed(error.__cause__)}\n{error}", error, debug=ctx.params["debug"])
            raise typer.Exit(USAGE) from error
        except TailraceError as error:
            _tell(str(error), error, debug=ctx.params["debug"])
            raise typer.Exit(USAGE if isinstance(error, _USAGE) else FAILED) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has seen enough; typer knows how to end
                raise
            _tell(f"{type(error).__name__}: {error}", error, debug=ctx.params["debug"])
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            _tell("interrupted", error, debug=ctx.params["debug"])
            raise typer.Exit(INTERRUPTED) from error


def _tell(message: str, error: BaseException, *, debug: bool) -> None:
    from .show import console

    if debug:
        traceback.print_exception(error)
    console(stderr=True).print(message, style="red")


app = typer.Typer(
    cls=Commands,
    name="tailrace",
    help="Carries what a pipeline step returns to where it belongs, whichever engine runs it.",
    epilog="Start with: tailrace init",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="TAILRACE_DEBUG", help="Show the traceback of every error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carries what a pipeline step returns to where it belongs, whichever engine runs it."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


PIPELINES, RESULTS, PROJECT = "Pipelines", "Runs and artifacts", "The project"

app.command("run", rich_help_panel=PIPELINES)(run.run)
app.command("explain", rich_help_panel=PIPELINES)(explain.explain)
app.add_typer(dags.app, name="dags", rich_help_panel=PIPELINES)
app.add_typer(runs.app, name="runs", rich_help_panel=RESULTS)
app.add_typer(artifacts.app, name="artifacts", rich_help_panel=RESULTS)
app.command("lineage", rich_help_panel=RESULTS)(lineage.lineage)
app.add_typer(catalog.app, name="catalog", rich_help_panel=RESULTS)
app.add_typer(cache.app, name="cache", rich_help_panel=RESULTS)
app.command("gc", rich_help_panel=RESULTS)(gc.gc)
app.command("init", rich_help_panel=PROJECT)(init.init)
app.add_typer(stacks.app, name="stack", rich_help_panel=PROJECT)
app.add_typer(server.app, name="server", rich_help_panel=PROJECT)
app.command("doctor", rich_help_panel=PROJECT)(doctor.doctor)


@app.command("version", rich_help_panel=PROJECT)
def version() -> None:
    """Print the version."""
    from .. import __version__

    print(f"tailrace {__version__}, Python {sys.version.split()[0]}")
