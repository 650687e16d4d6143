"""What the tasks of a DAG run tell each other through XCom: references, and where the run belongs. Never data.

    {"stack": "prod", "tracker": "https://...", "span": [0, 1, 3], "results": [{"model": {reference}}]}

``results`` has one entry, or one an item of the task's span: references by output, or null for what was skipped;
``results`` itself is null for a mapped step that was skipped as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import TailraceError
from ...core.plan import Gather, Node
from ...core.refs import ArtifactRef, Run
from ..runs import router_for
from .tasks import Work

__all__ = ["Messages"]

Result = dict[str, ArtifactRef] | None


class Messages:
    """The messages of the tasks upstream of one, each asked for once."""

    def __init__(self, work: Work, context: Any) -> None:
        self._work = work
        self._ti = context["ti"]
        self._seen: dict[tuple[str, int | None], Any] = {}
        self._told: dict[str, str] = {}

    def made(self, run: Run, span: Sequence[int] | None, done: Sequence[Result] | None) -> dict[str, Any]:
        """The message of this task."""
        known = router_for(run).tracker_url(run)  # only if it is at hand: looking it up would import the tracker
        results = None if done is None else [_plain(result) for result in done]
        tracker = known or self._told.get("tracker", "")
        return {"stack": run.stack, "tracker": tracker, "span": span and list(span), "results": results}

    def stack(self) -> str | None:
        """The stack that the run's first tasks have chosen."""
        for source in self._work.plan.nodes:
            if "stack" not in self._told:
                self._pull(source, 0 if source.mapped else None, wanted=False)
        return self._told.get("stack")

    def results(self, node: Node, index: int | None = None, *, only: Sequence[str] | None = None) -> dict[str, Any]:
        """The results of the nodes upstream, as the plan wants them; for one item, of mapped ones that item's alone."""
        found: dict[str, Any] = {}
        for name in node.upstream if only is None else only:
            source = self._work.plan.node(name)
            if not source.mapped:
                found[name] = _result(self._pull(source, None)["results"][0])
            elif index is not None and self._by_item(node, name):
                found[name] = _Item(index, self._item(source, index))
            else:
                found[name] = self._items(source)
        return found

    def _by_item(self, node: Node, upstream: str) -> bool:
        """Whether a task of a mapped node needs no more of a mapped upstream node than the item of its own index."""
        taking = [name for name, sources in node.sources.items() if upstream in {source.node for source in sources}]
        return all(name in node.mapped and not isinstance(node.bindings[name], Gather) for name in taking)

    def _item(self, source: Node, index: int) -> Result:
        message = self._pull(source, self._ti.map_index)  # as many items are cut alike
        if message["results"] is None:
            return None
        return _result(message["results"][index - message["span"][0]])

    def _items(self, source: Node) -> list[Result] | None:
        """Every item's result, in order; None if the node was skipped as a whole."""
        messages = self._all(source)
        if any(message["results"] is None for message in messages):
            return None
        found = [_result(result) for message in messages for result in message["results"]]
        expected = messages[0]["span"][-1] if messages else 0
        if not messages or len(found) != expected:
            self._lost(source, f"{len(found)} of {expected} items")
            return None
        return found

    def _all(self, source: Node) -> list[dict[str, Any]]:
        if (source.name, -1) not in self._seen:
            pulled = self._ti.xcom_pull(task_ids=self._work.tasks[source.name])
            messages = [pulled] if isinstance(pulled, dict) else [one for one in pulled or () if one is not None]
            messages.sort(key=lambda message: message["span"])
            # Of a run that was cleared, those of items that are no more stay: the first task is there in every try.
            of = messages[0]["span"][-1] if messages else 0
            self._seen[source.name, -1] = [message for message in messages if message["span"][-1] == of]
            self._hear(messages[0] if messages else {})
        found: list[dict[str, Any]] = self._seen[source.name, -1]
        return found

    def _pull(self, source: Node, map_index: int | None, *, wanted: bool = True) -> dict[str, Any]:
        if (source.name, map_index) not in self._seen:
            asked = -1 if map_index is None else map_index
            pulled = self._ti.xcom_pull(task_ids=self._work.tasks[source.name], map_indexes=asked)
            self._hear(pulled or {})
            self._seen[source.name, map_index] = pulled
        message = self._seen[source.name, map_index]
        if message is None and wanted:
            self._lost(source, "nothing")
            return {"span": None, "results": [None]} if map_index is None else {"span": [0], "results": None}
        found: dict[str, Any] = message
        return found

    def _hear(self, message: Mapping[str, Any]) -> None:
        for name in ("stack", "tracker"):
            if message.get(name):
                self._told.setdefault(name, message[name])

    def _lost(self, source: Node, found: str) -> None:
        """A task that Airflow itself has skipped told nobody; that any other's references are gone is an error."""
        ti, task_id = self._ti, self._work.tasks[source.name]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id]).get(ti.run_id, {})
        if states and set(states.values()) == {"skipped"}:
            return
        raise TailraceError(
            f"Airflow has {found} of what the step {source.name!r} of run {ti.run_id!r} returned, though its task is "
            f"{', '.join(sorted(map(str, set(states.values())))) or 'unknown'}: it was marked by hand, or its XCom "
            f"entries were deleted. Clear the task {task_id!r}, and it runs again."
        )


class _Item(list[Result]):
    """A mapped node's results of which one is known: that of an item."""

    def __init__(self, index: int, result: Result) -> None:
        super().__init__([result])
        self._index = index

    def __getitem__(self, index: Any) -> Any:
        if index != self._index:
            raise IndexError(f"the item {index} is not at hand, only {self._index}")
        return super().__getitem__(0)


def _plain(result: Result) -> dict[str, Any] | None:
    return None if result is None else {name: ref.to_dict() for name, ref in result.items()}


def _result(data: Mapping[str, Any] | None) -> Result:
    return None if data is None else {name: ArtifactRef.from_dict(ref) for name, ref in data.items()}
