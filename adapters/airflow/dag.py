"""From a plan to a DAG."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from airflow.sdk import DAG, Asset

from ...core.errors import PipelineError, Problem, did_you_mean
from ...core.pipeline import Pipeline
from ...core.plan import Fixed, Gather, Node, Plan
from .assets import outlets
from .names import key
from .options import task_options
from .params import dag_params
from .tasks import CLOSE, CloseTask, FanOutTask, Here, StepTask, Work

__all__ = ["PipelineDag", "to_dag"]

_NONE_FAILED = "none_failed"  # whether a step is skipped is decided in the step's task, on every engine alike
_UNSET: Any = object()


@attrs.define(repr=False, slots=False, init=False, eq=False)
class PipelineDag(DAG):
    """A DAG like any other, whose :meth:`test` also works where Airflow has no database yet."""

    def test(self, *args: Any, **options: Any) -> Any:
        """Run the DAG once in this process, as ``airflow.sdk.DAG.test`` does, and return the DAG run.

        In a home without a database one is made first, and the DAG need not be in the DAG folder.
        """
        from .home import make_database, register

        make_database()
        register(self)
        return super().test(*args, **options)


def to_dag(
    pipeline: Pipeline,
    *,
    schedule: Any = _UNSET,
    dag_id: str | None = None,
    stack: str | None = None,
    consumes: Mapping[str, Asset] | None = None,
    **dag_options: Any,
) -> PipelineDag:
    """An Airflow DAG that runs the pipeline: assign it to a variable of a file in the DAG folder.

    Its params are the pipeline's parameters, with their types and defaults, and two more: ``run_id`` (the logical run
    id; Airflow's own unless given) and ``stack``. ``consumes`` says which parameters take the newest artifact of an
    asset (see :func:`artifact_asset`); unless a ``schedule`` is given, the DAG runs whenever all of them have a new one.
    ``dag_options`` are those of ``airflow.sdk.DAG``. ``tailrace.yaml`` is looked for from the file's folder upward, when
    a task runs. Raises :class:`~tailrace.PipelineError` for what Airflow cannot do.
    """
    file = sys._getframe(1).f_globals.get("__file__") or __file__
    options = {"schedule": schedule, "dag_id": dag_id, "stack": stack, "consumes": consumes or {}}
    return make_dag(pipeline.plan(), Path(file), **options, **dag_options)


def make_dag(
    plan: Plan,
    file: Path,
    *,
    schedule: Any = _UNSET,
    dag_id: str | None = None,
    stack: str | None = None,
    consumes: Mapping[str, Asset] = MappingProxyType({}),
    here: Here | None = None,
    **dag_options: Any,
) -> PipelineDag:
    """:func:`to_dag` of a plan, for a file; ``here`` is what a run in this process has settled already."""
    _check(plan, consumes, schedule)
    if schedule is _UNSET:
        schedule = list(consumes.values()) or None
    dag = PipelineDag(
        dag_id=dag_id or key(plan.name),
        schedule=schedule,
        **{
            "description": plan.description.partition("\n")[0] or None,
            "doc_md": plan.description or None,
            "dag_display_name": plan.name,
            "tags": sorted({"tailrace", *(tag for node in plan.nodes for tag in node.step.tags)}),
            **dag_options,
            "params": {**dag_params(plan, stack, consumes), **(dag_options.get("params") or {})},
        },
    )
    dag.fileloc = str(file)
    _add_tasks(dag, _work(plan, file.resolve().parent, consumes, here))
    return dag


def _check(plan: Plan, consumes: Mapping[str, Asset], schedule: Any) -> None:
    place = f"pipeline {plan.name!r}"
    problems = [
        Problem(f"consumes names {name!r}, which is no parameter.{did_you_mean(name, plan.params)}", place)
        for name in consumes
        if name not in plan.params
    ]
    required = [name for name, param in plan.params.items() if param.required and name not in consumes]
    if required and schedule is not _UNSET and schedule is not None:
        what = f"it runs on a schedule, and nobody gives the parameters {', '.join(required)}; give them defaults"
        problems.append(Problem(what, place))
    if problems:
        raise PipelineError(f"The pipeline {plan.name!r} cannot become a DAG", problems)


def _work(plan: Plan, folder: Path, consumes: Mapping[str, Asset], here: Here | None) -> Work:
    ids = {node.name: key(node.name) for node in plan.nodes}
    spans = {node.name: _spans(node) for node in plan.nodes if node.mapped}
    counted = {name: f"{ids[name]}__items" for name, found in spans.items() if found is None}
    taken = [CLOSE, *ids.values(), *counted.values()]
    for name, task_id in ids.items():
        if taken.count(task_id) > 1:
            what = f"the DAG has a task of its own named {task_id!r}; rename the step"
            raise PipelineError(f"The pipeline {plan.name!r} cannot become a DAG", [Problem(what, f"step {name!r}")])
    known = {name: found for name, found in spans.items() if found is not None}
    return Work(plan, folder, ids, counted, known, consumes, here)


def _add_tasks(dag: DAG, work: Work) -> None:
    made: dict[str, Any] = {}
    for node in work.plan.nodes:
        made[node.name] = _add_task(dag, work, node, made)
    close = CloseTask(task_id=CLOSE, work=work, dag=dag, doc_md=CloseTask.__doc__)
    close.as_teardown(on_failure_fail_dagrun=True)
    for task in made.values():
        if not task.downstream_task_ids:
            close.set_upstream(task)


def _add_task(dag: DAG, work: Work, node: Node, made: Mapping[str, Any]) -> Any:
    options: dict[str, Any] = {
        "task_id": work.tasks[node.name],
        "dag": dag,
        "trigger_rule": _NONE_FAILED,
        "task_display_name": node.name,
        "outlets": list(outlets(work.plan, node).values()),
        "inlets": list(work.consumes.values()) if not node.upstream else [],
        **task_options(node),
        "work": work,
        "step": node.name,
        "outputs": tuple(output.name for output in node.outputs),
    }
    upstream = [made[name] for name in node.upstream]
    if not node.mapped:
        task: Any = StepTask(**options)
    elif node.name in work.fan_outs:
        count = FanOutTask(
            task_id=work.fan_outs[node.name],
            dag=dag,
            trigger_rule=_NONE_FAILED,
            inlets=options["inlets"],
            work=work,
            step=node.name,
        )
        for one in upstream:
            count.set_upstream(one)
        task = StepTask.partial(**options).expand(span=count.output)
    else:
        task = StepTask.partial(**options).expand(span=work.spans[node.name])
    for one in upstream:
        task.set_upstream(one)
    return task


def _spans(node: Node) -> list[list[int]] | None:
    """The spans of a mapped node whose items are all written in the pipeline itself; None where a run decides."""
    lengths = set()
    for name in node.mapped:
        binding = node.bindings[name]
        if isinstance(binding, Gather):
            lengths.add(len(binding.items))
        elif isinstance(binding, Fixed) and isinstance(binding.value, list | tuple):
            lengths.add(len(binding.value))
        else:
            return None
    (length,) = lengths if len(lengths) == 1 else (None,)  # the fan-out's task says that they differ
    return None if not length or length > 1024 else [[index, index + 1, length] for index in range(length)]
