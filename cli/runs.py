"""``tailrace runs``: what ran, what it made, and what each part of it cost."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Limit, Stack

if TYPE_CHECKING:
    from ..catalog.rows import RunDetail
    from ..core.results import TaskRecord

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="What ran, what it made, and what each part of it cost.")

_COLUMNS = {
    "run_id": "Run",
    "pipeline": "Pipeline",
    "state": "State",
    "started": "Started (UTC)",
    "seconds": ">Duration",
    "artifacts": ">Artifacts",
}


class State(StrEnum):
    """How far a run is."""

    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.", show_default=False)]


@app.command()
def ls(
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Only runs of this pipeline.")] = None,
    state: Annotated[State | None, typer.Option("--state", help="Only runs in this state.")] = None,
    limit: Limit = 50,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """List the runs, newest first."""
    from .catalog import opened
    from .show import listing

    with opened(stack, config) as catalog:
        rows = catalog.runs(pipeline=pipeline, state=state, limit=limit)
    listing([row.to_dict() for row in rows], _COLUMNS, json=json, empty="No runs.")


@app.command()
def show(run: RunId, stack: Stack = None, config: Config = None, json: AsJson = False) -> None:
    """Show a run: its parameters, its steps, and for every output where it went and what that cost."""
    from .catalog import opened
    from .show import console, print_json

    with opened(stack, config) as catalog:
        detail = catalog.run(run)
    if json:
        print_json(detail.to_dict())
        return
    out = console()
    _head(out, detail)
    for made in (_tasks(detail.tasks), _outputs(detail.tasks), _costs(detail.tasks)):
        if made.row_count:
            out.print()
            out.print(made)


def _head(out: Any, detail: RunDetail) -> None:
    from .show import duration, lines, styled, when

    run = detail.run
    version = f"(version {detail.plan_version})" if detail.plan_version else ""
    started = f"{when(run.started)} UTC" + (f", {duration(run.seconds)}" if run.seconds is not None else "")
    out.print(
        lines(
            [
                ("Run", run.run_id),
                ("State", styled(run.state)),
                ("Failed step", run.failed_step),
                ("Error", run.error),
                ("Pipeline", f"{run.pipeline} {version}"),
                ("Project", run.project),
                ("Started", started),
                ("Stack", f"{run.stack}, orchestrator {run.orchestrator}"),
                ("Tracker", run.tracker_url),
                ("Parameters", ", ".join(f"{name}={value!r}" for name, value in detail.params.items())),
            ]
        )
    )


def _tasks(tasks: tuple[TaskRecord, ...]) -> Any:
    from .records import label, origin
    from .show import duration, styled, table

    made = table("Step", "State", ">Duration", ">Load", ">Compute", ">Attempt", "Note")
    for task in tasks:
        times = [duration(seconds) if seconds else "" for seconds in (task.seconds, task.load, task.compute)]
        made.add_row(
            label(task.step, task.map_index),
            styled(task.state),
            *times,
            str(task.attempt),
            origin(task) or task.error.partition("\n")[0],
        )
    return made


def _outputs(tasks: tuple[TaskRecord, ...]) -> Any:
    from .records import label, reached, stored
    from .show import short, size, table

    made = table("Output", "Type", ">Size", "Id", "Also in")
    for task in tasks:
        for output, ref in stored(task):
            name = f"{label(task.step, task.map_index)}.{output}"
            written = size(task.timings.get(output, {}).get("bytes"))
            made.add_row(name, short(ref.type), written, ref.id, reached(task, output))
    return made


def _costs(tasks: tuple[TaskRecord, ...]) -> Any:
    """Apart from the outputs, so that neither table is wider than a terminal."""
    from .records import label, stored
    from .show import duration, table

    made = table("Time of an output", ">Save", ">Digest", ">Publish", ">Deliver")
    for task in tasks:
        for output, _ in stored(task):
            cost = task.timings.get(output, {})
            times = [duration(cost.get(key)) for key in ("save", "digest", "publish", "deliver")]
            made.add_row(f"{label(task.step, task.map_index)}.{output}", *times)
    return made


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="RUN_A", help="A run's id.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="RUN_B", help="Another's.", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="List what is the same too.")] = False,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Show what differs between two runs: parameters, and outputs by the digest of their content."""
    from .catalog import opened
    from .show import console, print_json, table

    with opened(stack, config) as catalog:
        found = catalog.compare(a, b)
    if json:
        print_json(found.to_dict())
        return
    out = console()
    params = table("Parameter", a, b)
    for name, (one, other) in found.params.items():
        params.add_row(name, repr(one), repr(other))
    outputs = table("Output", "Change", "Code", f"In {a}", f"In {b}")
    for change in found.artifacts:
        if everything or change.change != "same":
            index = "" if change.map_index is None else f"[{change.map_index}]"
            code = "changed" if change.code_changed else "same"
            outputs.add_row(f"{change.step}{index}.{change.output}", change.change, code, change.id_a, change.id_b)
    for made in (params, outputs):
        if made.row_count:
            out.print(made)
            out.print()
    same = sum(change.change == "same" for change in found.artifacts)
    out.print(f"{same} of {len(found.artifacts)} outputs are the same.")
