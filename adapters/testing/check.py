"""Run a case on an engine and, under the same run id, on the reference; nothing that they leave may differ."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from ...core.pipeline import Pipeline
from ...routing.mlflow_backend import MlflowBackend
from . import branches, cached, graphs, groups, pipelines, values
from .case import Case
from .snapshot import left_behind

__all__ = ["PIPELINES", "RUN_ID", "Engine", "check_engine", "check_graph", "conformance_cases", "inline", "load"]

PIPELINES: Mapping[str, Case] = {**pipelines.CASES, **branches.CASES, **groups.CASES, **values.CASES, **cached.CASES}
"""Every case by name. The pipelines are made when this is imported, in any process."""

RUN_ID = "manual__2026-01-31T05:06:07.089012+00:00"
"""The run id of every case, with characters that paths and some engines do not take."""

_CONFIG = """
project: {name: conformance}
plugins:
  orchestrator: {type: inline}
  artifact_store: {type: local, durable: false}
"""
_TRACKED = """  experiment_tracker: {type: mlflow}
  model_registry: {type: mlflow}
"""


class Engine(Protocol):
    """Runs a pipeline to its end, under this run id and with these parameters, in the folder of ``stack_config``.

    ``source`` is what :func:`load` makes the pipeline from in another process. An engine may raise, or not, when the
    run fails; when it cannot run the pipeline it must raise.
    """

    def __call__(
        self, pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str
    ) -> object:
        """Run it; what is returned is ignored."""
        ...


def load(source: str) -> Pipeline:
    """The pipeline of a case's name, or of a random graph's description as JSON."""
    return PIPELINES[source].pipeline if source in PIPELINES else graphs.build(orjson.loads(source))


def inline(
    pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str = ""
) -> object:
    """The reference engine: in this process and thread, one task after the other."""
    return pipeline.run(params, orchestrator="inline", run_id=run_id, config=str(stack_config))


def conformance_cases() -> list[str]:
    """The names of the cases whose packages are installed here, for ``pytest.mark.parametrize``."""
    return [name for name, case in PIPELINES.items() if case.runnable]


def check_engine(engine: Engine, name: str, folder: Path) -> None:
    """Run a named case on the reference and on an engine, in two new folders below ``folder``, and compare them.

    Raises AssertionError that lists the differences, reference first, and whatever the engine raises for a pipeline
    that the reference completes.
    """
    case = PIPELINES[name]
    _check(engine, case, name, Path(folder), title=f"case {name!r}", tracked=True)


def check_graph(engine: Engine, description: graphs.Description, folder: Path) -> None:
    """The same for a random pipeline, by its description; without MLflow, of which such pipelines show nothing new."""
    case = Case(graphs.build(description), fails=None)
    source = orjson.dumps(description).decode()
    _check(engine, case, source, Path(folder), title=f"random pipeline\n{graphs.wiring(description)}\n", tracked=False)


def _check(engine: Engine, case: Case, source: str, folder: Path, *, title: str, tracked: bool) -> None:
    failures, left = [], []
    for name, run in (("reference", inline), ("engine", engine)):
        config, failure = _project(folder / name, tracked), None
        try:
            run(case.pipeline, params=case.params, run_id=RUN_ID, stack_config=config, source=source)
        except Exception as error:
            failure = error
        if name == "reference" and case.fails is not None and not _as_said(failure, case.fails):
            raise AssertionError(f"The reference does not do what is said of the {title}.") from failure
        failures.append(failure)
        left.append(left_behind(folder / name))
    found = left[0].differences(left[1])
    if found:
        more = [f"... and {len(found) - 40} more"] if len(found) > 40 else []
        lines = "\n".join(f"  {line}" for line in [*found[:40], *more])
        message = f"{len(found)} differences between the reference and the engine, {title}:\n{lines}"
        raise AssertionError(message) from failures[1]
    if failures[1] is not None and failures[0] is None:
        raise failures[1]


def _as_said(failure: Exception | None, fails: str) -> bool:
    return failure is None if not fails else failure is not None and fails in str(failure)


def _project(folder: Path, tracked: bool) -> Path:
    """A new project in the folder; returns its ``tailrace.yaml``."""
    (folder / ".tailrace").mkdir(parents=True)
    if tracked:
        (folder / ".tailrace" / "mlflow.db").write_bytes(_empty_database())
    config = folder / "tailrace.yaml"
    config.write_text(_CONFIG + (_TRACKED if tracked else ""), encoding="utf-8")
    return config


@functools.cache
def _empty_database() -> bytes:
    """A database as MLflow makes it, once per process, since that takes a second."""
    with tempfile.TemporaryDirectory() as folder:
        with MlflowBackend(None, None, Path(folder)).client("making a database") as client:
            client.search_experiments()
        return (Path(folder) / ".tailrace" / "mlflow.db").read_bytes()
