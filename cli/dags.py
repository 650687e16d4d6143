"""``tailrace dags``: pipelines as Airflow DAGs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Target

if TYPE_CHECKING:
    from ..core.plan import Plan

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Pipelines as Airflow DAGs.")

_TEMPLATE = '''"""A pipeline as an Airflow DAG. Written by `tailrace dags render`; change it as you like."""

from pathlib import Path

from tailrace import load_pipeline
from tailrace.adapters.airflow import to_dag

PIPELINE = Path(__file__).parent / {pipeline}

dag = to_dag(load_pipeline(PIPELINE){options})

if __name__ == "__main__":
    dag.test()
'''


@app.callback()
def dags() -> None:
    """Pipelines as Airflow DAGs."""


@app.command()
def render(
    target: Target,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="The file to write. Default: dags/NAME.py."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="CRON", help="When it runs: '0 6 * * *', '@daily'. Default: by hand."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the DAG file of a pipeline: a few lines, which take the pipeline from its own file.

    The schedule is the only thing in it that is not the pipeline's. Without --force nothing that is there is replaced.
    """
    from ..core.load import find_file, load_pipeline

    plan = load_pipeline(target).plan()
    path, variable = find_file(target)
    output = output or Path("dags")
    if output.suffix != ".py":
        output /= f"{variable or path.stem}.py"
    _check(plan, path, output, schedule, force=force)
    where = Path(os.path.relpath(path.resolve(), output.parent.resolve())).as_posix()
    named = f"{where}:{variable}" if variable else where
    options = "" if schedule is None else f", schedule={_literal(schedule)}"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_TEMPLATE.format(pipeline=_literal(named), options=options), encoding="utf-8")
    _tell(output)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON's quotes are Python's too


def _check(plan: Plan, path: Path, output: Path, schedule: str | None, *, force: bool) -> None:
    from ..core.errors import ConfigError, PipelineError, Problem

    required = [name for name, param in plan.params.items() if param.required]
    if schedule is not None and required:
        what = f"nobody gives the parameters {', '.join(required)}; give them defaults, or leave out --schedule"
        raise PipelineError(f"The pipeline {plan.name!r} cannot run on a schedule", [Problem(what, "--schedule")])
    if output.exists():
        own = output.samefile(path)
        advice = (
            "It is the pipeline's own file; choose another --output"
            if own
            else "It is there already; --force replaces it"
        )
        if own or not force:
            raise ConfigError("Nothing was written", [Problem(advice, str(output))])


def _tell(output: Path) -> None:
    import shlex
    from importlib.util import find_spec

    from .show import console

    todo = [f"AIRFLOW_HOME=$(mktemp -d) python {shlex.quote(str(output))}    to try it, in a home that is thrown away"]
    if find_spec("airflow") is None:
        todo.insert(0, "pip install 'tailrace[airflow]'")
    todo.append(
        "have this folder, the pipeline's and tailrace.yaml in Airflow's DAG bundle: docs/how-to/airflow-dag.md"
    )
    out = console()
    out.print(f"wrote {output}\n")
    for number, line in enumerate(todo):
        out.print(f"{'      ' if number else 'Next: '}{line}")
