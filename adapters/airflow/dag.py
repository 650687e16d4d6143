"""From a plan to a DAG."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from airflow.sdk import DAG, Asset
from airflow.sdk.definitions.param import ParamsDict

from ...core.errors import PipelineError, Problem, did_you_mean
from ...core.pipeline import Pipeline
from ...core.plan import Fixed, FromOutput, Gather, Node, Plan
from .assets import outlets
from .names import key
from .options import task_options
from .params import dag_params
from .tasks import CLOSE, CloseTask, CountTask, Here, StepTask, Work

__all__ = ["PipelineDag", "to_dag"]

_MOST = 1024  # what Airflow takes unless it is set up otherwise, where it runs
_NONE_FAILED = "none_failed"  # whether a step is skipped is decided in the step's task, on every engine alike
_OWN = {"retries": 2, "retry_delay": timedelta(seconds=5)}  # of the tasks that are no steps: doing them again is safe
_UNSET: Any = object()


@attrs.define(repr=False, slots=False, init=False, eq=False)
class PipelineDag(DAG):
    """A DAG like any other, whose :meth:`test` also works where Airflow has no database yet."""

    registered = False
    testing = False
    told = ""

    def test(self, *args: Any, **options: Any) -> Any:
        """Run the DAG once in this process, as ``airflow.sdk.DAG.test`` does, and return the DAG run.

        In a home without a database one is made first, and the DAG need not be in the DAG folder. What came of it is
        printed at the end, below what Airflow says.
        """
        from .home import make_database, register

        if not self.registered:
            make_database()
            register(self)
        self.registered, self.testing, self.told = True, True, ""
        try:
            return super().test(*args, **options)
        finally:
            self.testing = False
            if self.told:
                print(f"\n{self.told}")


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
    asset (see :func:`artifact_asset`); unless a ``schedule`` is given, the DAG runs when all of them have a new one.
    ``dag_options`` are those of ``airflow.sdk.DAG``. ``tailrace.yaml`` is looked for from the file's folder upward,
    when a task runs. Raises :class:`~tailrace.PipelineError` for what Airflow cannot do.
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
    if schedule is _UNSET:
        schedule = list(consumes.values()) or None
    _check(plan, consumes, schedule)
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
    _add_tasks(dag, _work(plan.tasks, file.resolve().parent, consumes, here))
    return dag


def _check(plan: Plan, consumes: Mapping[str, Asset], schedule: Any) -> None:
    place = f"pipeline {plan.name!r}"
    problems = [
        Problem(f"consumes names {name!r}, which is no parameter.{did_you_mean(name, plan.params)}", place)
        for name in consumes
        if name not in plan.params
    ]
    problems += [
        Problem(f"consumes gives {name!r} an artifact; annotate that parameter as one, such as Dataset or Model", place)
        for name in consumes
        if name in plan.params and not plan.params[name].is_artifact
    ]
    required = [name for name, param in plan.params.items() if param.required and name not in consumes]
    if required and schedule is not None:
        what = f"it runs on a schedule, and nobody gives the parameters {', '.join(required)}; give them defaults"
        problems.append(Problem(what, place))
    if problems:
        raise PipelineError(f"The pipeline {plan.name!r} cannot become a DAG", problems)


def _work(plan: Plan, folder: Path, consumes: Mapping[str, Asset], here: Here | None) -> Work:
    ids = {node.name: key(node.name) for node in plan.nodes}
    spans, counters = _fan_outs(plan, ids)
    own = [CLOSE, *set(counters.values())]
    for name, task_id in ids.items():
        if task_id in own:
            what = f"the DAG has a task of its own named {task_id!r}; rename the step"
            raise PipelineError(f"The pipeline {plan.name!r} cannot become a DAG", [Problem(what, f"step {name!r}")])
    return Work(plan, folder, ids, counters, spans, consumes, here)


def _fan_outs(plan: Plan, ids: Mapping[str, str]) -> tuple[dict[str, list[list[int]]], dict[str, str]]:
    """The spans of each mapped node whose items are known here, and of each other the task that will count them."""
    spans: dict[str, list[list[int]]] = {}
    counters: dict[str, str] = {}
    for node in plan.nodes:
        if not node.mapped:
            continue
        before = _same_items(plan, node)
        length = _length(node)
        if before in spans:
            spans[node.name] = spans[before]
        elif before in counters:
            counters[node.name] = counters[before]
        elif length is not None:
            spans[node.name] = [[index, index + 1, length] for index in range(length)]
        else:
            counters[node.name] = f"{ids[node.name]}__items"
    return spans, counters


def _same_items(plan: Plan, node: Node) -> str:
    """The mapped upstream node that has exactly the items of this one; "" if there is none."""
    bindings = [node.bindings[name] for name in node.mapped]
    mapped = {item.node for item in bindings if isinstance(item, FromOutput) and plan.node(item.node).mapped}
    return mapped.pop() if len(mapped) == 1 and all(isinstance(item, FromOutput) for item in bindings) else ""


def _length(node: Node) -> int | None:
    """How many items are written in the pipeline itself, if Airflow takes as many; a run decides otherwise."""
    lengths = set()
    for name in node.mapped:
        binding = node.bindings[name]
        if isinstance(binding, Gather):
            lengths.add(len(binding.items))
        elif isinstance(binding, Fixed) and isinstance(binding.value, list | tuple):
            lengths.add(len(binding.value))
        else:
            return None
    length = lengths.pop() if len(lengths) == 1 else 0  # that they differ, the task that counts them says
    return length if 0 < length <= _MOST else None


def _add_tasks(dag: DAG, work: Work) -> None:
    made: dict[str, Any] = {}
    for node in work.plan.nodes:
        counter = work.counters.get(node.name)
        if counter is not None and counter not in made:
            made[counter] = _without_params(_add_counter(dag, work, node, made))
        made[work.tasks[node.name]] = _without_params(_add_task(dag, work, node, made))
    close = CloseTask(task_id=CLOSE, work=work, dag=dag, doc_md=CloseTask.__doc__, **_OWN)
    _without_params(close).as_teardown(on_failure_fail_dagrun=True)
    for task in made.values():
        if not task.downstream_task_ids:
            close.set_upstream(task)


def _add_counter(dag: DAG, work: Work, node: Node, made: Mapping[str, Any]) -> Any:
    counter = CountTask(
        task_id=work.counters[node.name],
        dag=dag,
        trigger_rule=_NONE_FAILED,
        inlets=list(work.consumes.values()),
        doc_md=CountTask.__doc__,
        work=work,
        step=node.name,
        **_OWN,
    )
    for name in work.plan.map_sources(node):
        counter.set_upstream(made[work.tasks[name]])
    return counter


def _add_task(dag: DAG, work: Work, node: Node, made: Mapping[str, Any]) -> Any:
    said = task_options(node)
    options: dict[str, Any] = {
        "task_id": work.tasks[node.name],
        "dag": dag,
        "trigger_rule": _NONE_FAILED,
        "task_display_name": node.name,
        **said,
        "outlets": [*outlets(work.plan, node).values(), *_listed(said.get("outlets"))],
        "inlets": [*(() if node.upstream else work.consumes.values()), *_listed(said.get("inlets"))],
        "work": work,
        "step": node.name,
        "outputs": tuple(output.name for output in node.outputs),
    }
    if not node.mapped:
        task: Any = StepTask(**options)
    elif node.name in work.counters:
        task = StepTask.partial(**options).expand(span=made[work.counters[node.name]].output)
    else:
        task = StepTask.partial(**options).expand(span=work.spans[node.name])
    for name in node.upstream:
        task.set_upstream(made[work.tasks[name]])
    return task


def _listed(assets: Any) -> Sequence[Any]:
    return assets if isinstance(assets, list | tuple) else [] if assets is None else [assets]


def _without_params(task: Any) -> Any:
    """The task without its copy of the DAG's params: Airflow would check it several times, and uses the DAG's."""
    task.params = ParamsDict()
    return task
