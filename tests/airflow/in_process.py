"""A pipeline as a DAG, run by `dag.test()`, and what Airflow and the journal say of it afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrace import ArtifactRef, LocalArtifactStore, Pipeline, StepFailed
from tailrace.adapters.airflow.dag import PipelineDag, make_dag
from tailrace.adapters.airflow.home import register
from tailrace.catalog.journal import Journal, RunEnd, find_runs
from tailrace.core.refs import Run
from tailrace.core.results import TaskRecord

STORE = ".tailrace/artifacts"


def as_dag(pipeline: Pipeline, **options: Any) -> PipelineDag:
    """The DAG of a file in the working directory."""
    file = Path.cwd() / "dag.py"
    file.write_text("# Airflow keeps a copy of what is in here\n")
    return make_dag(pipeline.plan(), file, **options)


@dataclass(frozen=True)
class Ran:
    """A DAG run that has ended, and its Tailrace run in the working directory's store."""

    dag: Any
    dag_run: Any

    @property
    def state(self) -> str:
        return str(self.dag_run.state)

    @property
    def states(self) -> dict[str, str]:
        """By task id; of a mapped task by id, `_` and index."""
        return {name: str(ti.state) for name, ti in self.instances().items()}

    def instances(self) -> dict[str, Any]:
        from airflow.utils.session import create_session

        with create_session() as session:
            found = self.dag_run.get_task_instances(session=session)
            return {ti.task_id + (f"_{ti.map_index}" if ti.map_index >= 0 else ""): ti for ti in found}

    def xcoms(self) -> dict[tuple[str, int, str], Any]:
        """Everything that the run left in XCom, by task id, map index and key."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.scalars(select(XComModel).where(XComModel.run_id == self.dag_run.run_id))
            return {(row.task_id, row.map_index, row.key): row.value for row in found}

    def message(self, task_id: str, map_index: int = -1) -> Any:
        """What a task returned."""
        return self.xcoms()[task_id, map_index, "return_value"]

    @property
    def journal(self) -> Journal:
        """Of the one run that is there, or of several the one that this DAG run has begun."""
        found = list(find_runs(LocalArtifactStore(STORE)))
        if len(found) > 1:
            found = [one for one in found if asked(one).native_id == self.dag_run.run_id]
        (journal,) = found
        return journal

    @property
    def asked(self) -> Run:
        """What the run was asked for."""
        return asked(self.journal)

    @property
    def end(self) -> RunEnd:
        found = self.journal.end()
        assert found is not None
        return found

    @property
    def records(self) -> dict[str, TaskRecord]:
        """By step; of an item by step, `@` and index."""
        return {_key(task): task for task in self.journal.tasks()}

    @property
    def recorded(self) -> dict[str, str]:
        """The recorded states."""
        return {name: task.state for name, task in self.records.items()}

    def value(self, name: str, output: str | None = None) -> Any:
        """The loaded output of a task, named as in `records`."""
        outputs = self.records[name].outputs
        return load(outputs[output or next(iter(outputs))])

    @property
    def told(self) -> dict[str, Any]:
        """Of each record what must be the same on any engine, and how the run ended."""
        return told(self.journal)


def asked(journal: Journal) -> Run:
    record = journal.record()
    assert record is not None
    return record.run


def told(journal: Journal) -> dict[str, Any]:
    end = journal.end()
    assert end is not None
    found: dict[str, Any] = {
        _key(task): {
            "state": task.state,
            "error": task.error,
            "attempt": task.attempt,
            "inputs": task.inputs,
            "outputs": {name: (ref.id, ref.digest, ref.type, ref.length) for name, ref in task.outputs.items()},
        }
        for task in journal.tasks()
    }
    return found | {"end": (end.state, end.error, end.failed_step)}


def told_by_inline(pipeline: Pipeline, params: Mapping[str, Any] | None = None, *, run_id: str) -> dict[str, Any]:
    """`Ran.told` of the same run on the reference engine, in a folder of its own."""
    folder = Path.cwd().parent / "inline"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        with contextlib.suppress(StepFailed):
            pipeline.run(params, orchestrator="inline", run_id=run_id)
        (journal,) = find_runs(LocalArtifactStore(STORE))
        return told(journal)


def _key(task: TaskRecord) -> str:
    return task.step if task.map_index is None else f"{task.step}@{task.map_index}"


def load(ref: ArtifactRef) -> Any:
    """The value of an artifact."""
    from tailrace.routing.router import Router
    from tailrace.routing.stacks import resolve_stack

    return Router(resolve_stack(None)).load(ref)[0]


def run(dag: PipelineDag, conf: Mapping[str, Any] | None = None) -> Ran:
    return Ran(dag, dag.test(run_conf=dict(conf or {})))


def run_pipeline(pipeline: Pipeline, conf: Mapping[str, Any] | None = None, **options: Any) -> Ran:
    return run(as_dag(pipeline, **options), conf)


def clear(ran: Ran, *task_ids: str) -> Ran:
    """Clear these tasks of a run that has ended, no others, or the whole run; and go on with it to its end."""
    scheduled = _as_scheduled(ran.dag)
    scheduled.clear(run_id=ran.dag_run.run_id, task_ids=list(task_ids) or None)
    return _go_on(ran.dag, scheduled, ran.dag_run.run_id)


def run_as_deployed(dag: PipelineDag, conf: Mapping[str, Any] | None = None, because_of: Sequence[Any] = ()) -> Ran:
    """Run the DAG as one of a deployment and no test; as if the newest events of these assets had triggered it."""
    from airflow import settings
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.sdk import timezone
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from sqlalchemy import select

    register(dag)
    scheduled, now = _as_scheduled(dag), timezone.utcnow()
    kind = DagRunType.ASSET_TRIGGERED if because_of else DagRunType.MANUAL
    by = DagRunTriggeredByType.ASSET if because_of else DagRunTriggeredByType.REST_API
    assert settings.Session is not None
    session = settings.Session()
    dag_run = scheduled.create_dagrun(
        run_id=f"{kind.value}__{now.isoformat()}",
        run_after=now,
        run_type=kind,
        triggered_by=by,
        conf=dict(conf or {}),
        state="running",
        start_date=now,
        session=session,
    )
    for asset in because_of:
        events = select(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        newest = events.where(AssetModel.uri == asset.uri).order_by(AssetEvent.id.desc()).limit(1)
        dag_run.consumed_asset_events.append(session.scalars(newest).one())
    session.commit()
    return _go_on(dag, scheduled, dag_run.run_id)


def links(ran: Ran, name: str) -> dict[str, str | None]:
    """What Airflow's page of a task leads to; the task is named as in `Ran.states`."""
    ti = ran.instances()[name]
    task = _as_scheduled(ran.dag).task_dict[ti.task_id]
    return {title: task.get_extra_links(ti, title) for title in task.operator_extra_link_dict}


def _as_scheduled(dag: PipelineDag) -> Any:
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))


def _go_on(dag: PipelineDag, scheduled: Any, run_id: str) -> Ran:
    """The loop of `dag.test()`, for a DAG run that is there already."""
    from airflow import settings
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DagRunState, TaskInstanceState
    from airflow.sdk.definitions.dag import _run_task
    from sqlalchemy import select

    assert settings.Session is not None
    session = settings.Session()
    dag_run = session.scalars(select(DagRun).where(DagRun.run_id == run_id)).one()
    dag_run.dag = scheduled
    dag_run.state = DagRunState.RUNNING
    while dag_run.state == DagRunState.RUNNING:
        session.expire_all()
        ready, _ = dag_run.update_state(session=session)
        for ti in ready:
            ti.try_number += 1
            ti.state = TaskInstanceState.SCHEDULED
        session.commit()
        for ti in ready:
            _run_task(ti=ti, task=dag.task_dict[ti.task_id])
    return Ran(dag, dag_run)
