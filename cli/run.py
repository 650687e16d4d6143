"""``tailrace run``: a pipeline to its end, with its progress, and where everything went."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Stack, Target

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..core.errors import StepFailed
    from ..core.pipeline import Pipeline
    from ..core.results import RunResult, TaskRecord

__all__ = ["run"]


def run(
    ctx: typer.Context,
    target: Target,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="A parameter of the pipeline, of its annotated type; lists and mappings as YAML or JSON.",
        ),
    ] = None,
    stack: Stack = None,
    orchestrator: Annotated[
        str | None,
        typer.Option("--orchestrator", metavar="TYPE", help="local, inline or airflow. Default: the stack's."),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", metavar="ID", help="The run's id. The id of an earlier run continues that one."),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Compute steps that are cached, too, and keep what comes out.")
    ] = False,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Run a pipeline, and show where everything went.

    Exit codes: 0 success, 1 a step failed, 2 usage or configuration, 130 interrupted.
    """
    from ..core.load import load_pipeline
    from .params import parse_params
    from .show import console, print_json

    _quiet_engine()
    with _stdout_for_json(json), _refreshed(no_cache):
        _begin_server(target, stack, orchestrator, config)
        pipeline = load_pipeline(target)
        params = parse_params(pipeline, param or ())
        out = console(stderr=json)
        choices = {"stack": stack, "orchestrator": orchestrator, "run_id": run_id, "config": config}
        result, failure = _followed(out, pipeline, params, choices)
        if failure:
            _tell_failure(failure, result, stack, debug=ctx.find_root().params["debug"])
        elif not json:
            _summary(out, result, stack)
    if json:
        print_json(_as_json(result, failure))
    if failure:
        raise typer.Exit(1)


def _followed(
    out: Console, pipeline: Pipeline, params: dict[str, Any], choices: dict[str, str | None]
) -> tuple[RunResult, StepFailed | None]:
    """The run's result, and what it failed with; its progress is shown meanwhile."""
    from ..core.errors import StepFailed
    from .progress import Progress, following

    progress = Progress(out, [node.name for node in pipeline.plan(params).nodes])
    try:
        with following(progress):
            return pipeline.run(params, **choices, on_event=progress), None
    except StepFailed as error:
        if error.result is None:
            raise
        return error.result, error
    except KeyboardInterrupt as error:
        _tell_cancelled(progress.run_id, choices["stack"])
        raise typer.Exit(130) from error


def _begin_server(target: str, stack: str | None, orchestrator: str | None, config: str | None) -> None:
    """Let the engine's server start while the user's file is imported. What is wrong with the choices is told later."""
    from ..core.errors import TailraceError
    from ..core.load import find_file
    from ..routing.stacks import resolve_stack

    with suppress(TailraceError):
        find_file(target)
        if (orchestrator or resolve_stack(stack, config=config).orchestrator.type) == "local":
            from ..adapters.prefect import server

            server.begin()


def _quiet_engine() -> None:
    """Let the progress say what happens: the engine need not say that its server starts, stops or is offline."""
    for setting in ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL"):
        os.environ.setdefault(setting, "CRITICAL")
    logging.getLogger("EventsWorker").setLevel(logging.CRITICAL)  # Prefect's, at exit; outside of its own loggers


@contextmanager
def _refreshed(wanted: bool) -> Iterator[None]:
    """Have cached steps computed: by the environment, since an engine may run them in other processes."""
    before = os.environ.get("TAILRACE_CACHE")
    if wanted:
        os.environ["TAILRACE_CACHE"] = "refresh"
    try:
        yield
    finally:
        if wanted:
            os.environ.pop("TAILRACE_CACHE")
            os.environ.update({} if before is None else {"TAILRACE_CACHE": before})


@contextmanager
def _stdout_for_json(wanted: bool) -> Iterator[None]:
    """Keep standard output for the JSON document: what steps, and processes of theirs, print goes to standard error."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _tell_cancelled(run_id: str, stack: str | None) -> None:
    from .show import console

    out = console(stderr=True)
    out.print("cancelled", style="yellow")
    if run_id:  # there is no record before the first task
        out.print(f"The run's record: {_command('runs show', run_id, stack)}")


def _command(command: str, what: str, stack: str | None) -> str:
    """What to type next; the stack is named where the run's was."""
    return f"tailrace {command} {what}" + (f" --stack {shlex.quote(stack)}" if stack else "")


def _tell_failure(failure: StepFailed, result: RunResult, stack: str | None, *, debug: bool) -> None:
    from .show import console
    from .trouble import trimmed

    out = console(stderr=True)
    shown = "".join(traceback.format_exception(failure)) if debug else trimmed(failure.__cause__)
    out.print(shown, soft_wrap=True)
    what = f"Step {failure.step!r} failed" if failure.step else "The run failed"
    out.print(f"{what}, and with it run {result.run_id} of {result.pipeline!r}.", style="red")
    out.print(f"The run's record: {_command('runs show', result.run_id, stack)}")


# --- the summary ------------------------------------------------------------------------------------------------------


def _summary(out: Console, result: RunResult, stack: str | None) -> None:
    """The steps (on a terminal they are there already), the artifacts, and what to type next."""
    from .show import duration, lines, place

    out.print()
    if not out.is_terminal:
        out.print(_step_table(result))
        out.print()
    artifacts = _artifacts(result)
    folder = os.path.commonprefix([item["uri"] for item in artifacts]).rpartition("/")[0]  # noqa: RUF071  # of URIs
    if artifacts:
        out.print(_artifact_table(result, folder))
        out.print()
    done = f"{result.state} in {duration(result.duration)}, stack {result.stack}, orchestrator {result.orchestrator}"
    facts = [
        ("Run", result.run_id),
        ("", done),
        ("Paths below", place(folder)),
        ("Tracker", result.tracker_url),
        ("Next", _command("runs show", result.run_id, stack)),
        ("", _command("lineage", artifacts[-1]["id"], stack) if artifacts else ""),
    ]
    out.print(lines(facts))


def _step_table(result: RunResult) -> Table:
    from .show import styled, table

    made = table("Step", "State", ">Seconds", ">Tasks")
    for step in result.steps.values():
        mapped = any(task.map_index is not None for task in step.tasks)
        tasks = str(len(step.tasks)) if mapped else ""
        state = styled(step.state, f"{step.state}{step.cache_note}")
        made.add_row(step.name, state, f"{step.duration:.2f}", tasks)
    return made


def _artifact_table(result: RunResult, folder: str) -> Table:
    from .records import label, reached, stored
    from .show import short, size, table

    made = table("Artifact", "Type", ">Size", "Path", "Also in")
    for step in result.steps.values():
        for task in step.tasks:
            for output, ref in stored(task):
                written = size(task.timings.get(output, {}).get("bytes"))
                path = ref.uri.removeprefix(f"{folder}/")
                made.add_row(label(ref.name, task.map_index), short(ref.type), written, path, reached(task, output))
    return made


def _artifacts(result: RunResult) -> list[dict[str, Any]]:
    return [item for step in result.steps.values() for task in step.tasks for item in _flat(result.run_id, task)]


def _flat(run_id: str, task: TaskRecord) -> Iterator[dict[str, Any]]:
    from .records import stored

    for output, ref in stored(task):
        reached = task.destinations.get(output, {})
        yield {
            "id": ref.id,
            "name": ref.name,
            "type": ref.type,
            "step": task.step,
            "output": output,
            "map_index": task.map_index,
            "run_id": run_id,
            "uri": ref.uri,
            "digest": ref.digest,
            "size_bytes": task.timings.get(output, {}).get("bytes"),
            "tracker": reached.get("tracker"),
            "registry": reached.get("registry"),
        }


def _as_json(result: RunResult, failure: StepFailed | None) -> dict[str, Any]:
    steps = [
        {
            "name": step.name,
            "state": step.state,
            "seconds": step.duration,
            "tasks": len(step.tasks),
            "cached": step.cached,
            "error": next((task.error for task in step.tasks if task.error), None),
        }
        for step in result.steps.values()
    ]
    return {
        "run_id": result.run_id,
        "state": result.state,
        "pipeline": result.pipeline,
        "stack": result.stack,
        "orchestrator": result.orchestrator,
        "seconds": result.duration,
        "tracker_url": result.tracker_url or None,
        "failed_step": failure.step if failure else None,
        "steps": steps,
        "artifacts": _artifacts(result),
    }
