"""Artifacts as Airflow assets: what one DAG's run stores can start another DAG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from airflow.sdk import Asset

from ...core.annotations import asset_type
from ...core.datasets import Dataset
from ...core.errors import PipelineError, Problem, did_you_mean
from ...core.models import Model
from ...core.pipeline import Pipeline
from ...core.plan import Node, Plan
from ...core.refs import ArtifactRef

__all__ = ["announce", "artifact_asset", "newest", "outlets"]


def artifact_asset(pipeline: Pipeline, output: str) -> Asset:
    """The Airflow asset of a pipeline's output, ``"output"`` or ``"step.output"``, to schedule another DAG on.

    Each time that a task stores the output, the asset has an event whose ``extra`` holds ``run_id`` and ``artifacts``:
    the references, with URI and digest. Only outputs that are annotated as Dataset or Model are assets; raises
    :class:`~tailrace.PipelineError` for any other, listing them.
    """
    plan = pipeline.plan()
    known = {f"{node.name}.{name}": asset for node in plan.nodes for name, asset in outlets(plan, node).items()}
    found = [asset for name, asset in known.items() if output in (name, name.rpartition(".")[2])]
    if len(found) == 1:
        return found[0]
    advice = f"there is no Dataset or Model {output!r}.{did_you_mean(output, known)}"
    if found:
        advice = f"several steps have {output!r}; say which: {', '.join(known)}"
    raise PipelineError("There is no such asset", [Problem(advice, f"pipeline {plan.name!r}")])


def outlets(plan: Plan, node: Node) -> dict[str, Asset]:
    """The assets of a node, by output."""
    if node.members:
        return {
            f"{member.name}.{output}": asset
            for member in node.members
            for output, asset in outlets(plan, member).items()
        }
    return {output: _asset(plan.name, node.name, output) for output in _outputs(node)}


def _outputs(node: Node) -> Iterator[str]:
    for output in node.outputs:
        kind = asset_type(output.annotation)
        if kind is not None and issubclass(kind, Dataset | Model):
            yield output.name


def _asset(*names: str) -> Asset:
    # A place that never changes, since Airflow knows an asset by it; where an artifact is, its event says.
    path = "/".join(quote(name, safe="") for name in names)
    return Asset(name=path, uri=f"tailrace://{path}", group="tailrace")


def announce(events: Any, assets: Mapping[str, Asset], run_id: str, done: Sequence[Mapping[str, ArtifactRef]]) -> None:
    """Say in the task's asset events which artifacts it stored."""
    for output, asset in assets.items():
        events[asset].extra = {
            "run_id": run_id,
            "artifacts": [refs[output].to_dict() for refs in done if output in refs],
        }


def newest(events: Sequence[Any]) -> dict[str, Any] | None:
    """The reference that the latest of an asset's events names, if there is one."""
    for event in reversed(list(events)):
        artifacts = event.extra.get("artifacts")
        if artifacts:
            return dict(artifacts[-1])
    return None
