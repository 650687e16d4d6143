"""Datasets and models as Prefect assets: each time that a step stores one, the asset has an event with its lineage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prefect.assets import Asset
from prefect.assets.core import AssetProperties
from prefect.context import AssetContext
from prefect.states import Completed

from ...core.annotations import asset_type
from ...core.datasets import Dataset
from ...core.models import Model
from ...core.names import segment
from ...core.plan import Node, Plan
from ...core.refs import Run
from ...core.results import TaskRecord
from ..runs import router_for
from .page_text import taken

__all__ = ["Lineage", "TaskLineage", "announce", "asset_key", "asset_outputs", "lineage_of", "task_lineage"]

Lineage = Mapping[str, tuple[str, ...]]
"""By step, the keys of the assets that it is made from."""

TaskLineage = tuple[tuple[str, tuple[str, ...]], ...]
"""The same of the steps of one task, hashable and in order."""

_URIS = 20
"""Places that one event names; a mapped step may have stored thousands."""


def asset_key(pipeline: str, step: str, output: str) -> str:
    """What Prefect knows an output by: a URI that stays the same over runs, as the one on Airflow's side."""
    return "tailrace://" + "/".join(segment(name) for name in (pipeline, step, output))


def asset_outputs(node: Node) -> list[str]:
    """The outputs of a node that are annotated as Dataset or Model."""
    kinds = ((output.name, asset_type(output.annotation)) for output in node.outputs)
    return [name for name, kind in kinds if kind is not None and issubclass(kind, Dataset | Model)]


def lineage_of(plan: Plan) -> Lineage:
    """By step, the keys of the nearest assets that it is made from: a step without any hands on those that it took."""
    found: dict[str, tuple[str, ...]] = {}
    own = {node.name: asset_outputs(node) for node in plan.origin.nodes}
    for node in plan.origin.nodes:
        keys: dict[str, None] = {}
        for source in (source for sources in node.sources.values() for source in sources):
            is_asset = source.output in own[source.node]
            key = (asset_key(plan.name, source.node, source.output),) if is_asset else found[source.node]
            keys |= dict.fromkeys(key)
        found[node.name] = tuple(keys)
    return found


def task_lineage(plan: Plan) -> dict[str, TaskLineage]:
    """The lineage by task, which has the steps of one group."""
    found = lineage_of(plan)
    return {
        node.name: tuple((member.name, found[member.name]) for member in node.members or (node,)) for node in plan.nodes
    }


def announce(plan: Plan, run: Run, tasks: Sequence[TaskRecord], parents: Iterable[str]) -> None:
    """Emit the events of what a step's tasks stored, in the context of the task run or flow run that did."""
    if not tasks:
        return
    metadata = {}
    node = plan.origin.node(tasks[0].step)
    for output in asset_outputs(node):
        if stored := [task for task in tasks if output in task.outputs]:
            metadata[_asset(plan, node, output)] = _metadata(run, output, stored)
    if metadata:
        AssetContext(
            downstream_assets=set(metadata),
            upstream_assets={Asset(key=key) for key in {*parents, *_given(plan, run, tasks[0])}},
            materialized_by="tailrace",
            materialization_metadata={asset.key: facts for asset, facts in metadata.items()},
        ).emit_events(Completed())


def _asset(plan: Plan, node: Node, output: str) -> Asset:
    described = (node.step.__doc__ or "").strip().partition("\n")[0]
    properties = AssetProperties(name=f"{plan.name}/{node.name}/{output}", description=described[:2000] or None)
    return Asset(key=asset_key(plan.name, node.name, output), properties=properties)


def _metadata(run: Run, output: str, tasks: Sequence[TaskRecord]) -> dict[str, Any]:
    refs = [task.outputs[output] for task in tasks]
    registered = tasks[0].destinations.get(output, {}).get("registry", "")
    facts = {"run_id": run.run_id, "type": refs[0].type, "registered": registered}
    if len(refs) > 1:
        return {**facts, "count": len(refs), "uris": [ref.uri for ref in refs[:_URIS]]}
    manifest = router_for(run).store_of(refs[0].uri).manifest(refs[0])
    named = {"version": manifest.version, "size_bytes": manifest.size_bytes}
    return {**facts, **named, "artifact_id": refs[0].id, "uri": refs[0].uri, "digest": refs[0].digest}


def _given(plan: Plan, run: Run, task: TaskRecord) -> Iterator[str]:
    """The assets of other runs that a task was given."""
    for _, uri in taken(plan, run, task):
        manifest = router_for(run).store_of(uri).manifest(uri)
        if manifest.producer and manifest.type in {Dataset.__name__, Model.__name__}:
            yield asset_key(manifest.producer.pipeline, manifest.producer.step, manifest.producer.output)
