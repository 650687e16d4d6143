"""What the catalog answers with: small frozen rows that become flat JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..core.results import TaskRecord

__all__ = [
    "ArtifactRow",
    "CatalogStats",
    "Change",
    "Consumer",
    "Garbage",
    "GcReport",
    "RunComparison",
    "RunDetail",
    "RunRow",
    "StoreStats",
    "SyncReport",
]


class _Row:
    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]  # all rows are dataclasses


@dataclass(frozen=True, slots=True)
class ArtifactRow(_Row):
    """One committed artifact. What is not known is ``""``: one that was saved by hand has no step and no run.

    ``version`` is the user's, else ``v1``, ``v2``, ... by time among the artifacts of this name in the project, also
    those that are gone and whose run's records are there.
    ``kind`` is what :meth:`record_artifact` was told. Times are UTC in ISO 8601.
    """

    id: str
    name: str
    type: str
    version: str
    step: str
    output: str
    map_index: int | None
    run_id: str
    pipeline: str
    project: str
    uri: str
    store: str
    digest: str
    size_bytes: int
    materializer: str
    wrapper: str
    kind: str
    tags: Mapping[str, str]
    created: str
    attempt: int
    code_version: str
    orchestrator: str
    manifest_digest: str

    def to_dict(self) -> dict[str, Any]:
        """As one flat JSON object; the tags become ``"key=value, key=value"``."""
        tags = ", ".join(f"{key}={value}" for key, value in sorted(self.tags.items()))
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "tags": tags}


@dataclass(frozen=True, slots=True)
class RunRow(_Row):
    """One run. ``state`` is ``running`` while no end is recorded; then ``ended`` and ``seconds`` are None.

    ``steps`` counts the steps that have a record, ``artifacts`` the artifacts that exist.
    """

    run_id: str
    pipeline: str
    project: str
    state: str
    started: str
    ended: str | None
    seconds: float | None
    stack: str
    orchestrator: str
    steps: int
    artifacts: int
    failed_step: str
    error: str
    tracker_url: str


@dataclass(frozen=True, slots=True)
class RunDetail(_Row):
    """A run with what was asked and what each of its tasks did, in the order of the pipeline."""

    run: RunRow
    plan_version: str
    params: Mapping[str, Any]
    tasks: tuple[TaskRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """The run's row, with ``plan_version``, ``params`` and the list ``tasks``; their outputs are artifact ids."""
        tasks = []
        for task in self.tasks:
            outputs = {name: ref.id for name, ref in task.outputs.items()}
            said = {**task.to_dict(), "outputs": outputs, "extra": [ref.id for ref in task.extra]}
            said.pop("earlier", None)
            tasks.append(said)
        return {**self.run.to_dict(), "plan_version": self.plan_version, "params": dict(self.params), "tasks": tasks}


@dataclass(frozen=True, slots=True)
class Consumer(_Row):
    """A task that took an artifact as its input, whether or not it made anything of it."""

    run_id: str
    project: str
    pipeline: str
    step: str
    map_index: int | None
    input: str


@dataclass(frozen=True, slots=True)
class CatalogStats(_Row):
    """Counts over the whole catalog; ``bytes`` and ``by_store`` are bytes of content, ``by_type`` counts artifacts."""

    runs: int
    runs_by_state: Mapping[str, int]
    artifacts: int
    bytes: int
    by_type: Mapping[str, int]
    by_store: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Change(_Row):
    """One output in two runs. ``change`` is ``same``, ``changed``, ``only in a`` or ``only in b``, by content digest.

    ``code_changed`` says that the step's code differed.
    """

    step: str
    output: str
    map_index: int | None
    change: str
    code_changed: bool
    id_a: str
    id_b: str
    digest_a: str
    digest_b: str


@dataclass(frozen=True, slots=True)
class RunComparison(_Row):
    """What changed between two runs: ``params`` has the two values of each that differs, None where it is absent."""

    run_a: str
    run_b: str
    params: Mapping[str, tuple[Any, Any]]
    artifacts: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; ``params`` and ``artifacts`` are lists of flat objects."""
        params = [{"name": name, "a": a, "b": b} for name, (a, b) in self.params.items()]
        artifacts = [change.to_dict() for change in self.artifacts]
        return {"run_a": self.run_a, "run_b": self.run_b, "params": params, "artifacts": artifacts}


@dataclass(frozen=True, slots=True)
class SyncReport(_Row):
    """What a sync did: runs and artifacts read anew, artifacts that are gone, and what could not be read."""

    runs: int = 0
    artifacts: int = 0
    removed: int = 0
    seconds: float = 0.0
    problems: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class StoreStats(_Row):
    """What the stores hold: ``total_bytes`` as if each artifact had files of its own, ``actual_bytes`` as they are.

    ``ratio`` is the one by the other. ``unique_files`` counts files that differ; ``orphans`` what nothing names, which
    is part of the actual bytes. ``by_type`` counts artifacts.
    """

    artifacts: int
    unique_files: int
    total_bytes: int
    actual_bytes: int
    ratio: float
    by_type: Mapping[str, int]
    orphans: int
    orphan_bytes: int


@dataclass(frozen=True, slots=True)
class Garbage(_Row):
    """Something that may go: a file or folder of a store, by key, and when any of it was last written.

    ``kind`` is ``artifact`` (that a rule lets go), ``content`` (that no manifest names), ``object`` (shared bytes that
    no manifest names), ``staging`` (work that was left behind) or ``record`` (the name of a run of which there is
    nothing). Bytes that are shared count where the object goes.
    """

    kind: str
    store: str
    key: str
    files: int
    bytes: int
    modified: str
    why: str


@dataclass(frozen=True, slots=True)
class GcReport(_Row):
    """What was removed or, unless ``deleted``, what would be.

    ``left`` counts what was found and is in use by now. ``problems`` say what could not be read, and is kept.
    """

    deleted: bool
    items: tuple[Garbage, ...]
    left: int = 0
    seconds: float = 0.0
    problems: tuple[str, ...] = field(default=())

    @property
    def bytes(self) -> int:
        """Of all items."""
        return sum(item.bytes for item in self.items)

    @property
    def by_kind(self) -> dict[str, dict[str, int]]:
        """Of each kind of garbage the ``count``, ``files`` and ``bytes``."""
        found: dict[str, dict[str, int]] = {}
        for item in self.items:
            of = found.setdefault(item.kind, {"count": 0, "files": 0, "bytes": 0})
            of["count"] += 1
            of["files"] += item.files
            of["bytes"] += item.bytes
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; ``items`` is a list of flat objects."""
        said = {"deleted": self.deleted, "count": len(self.items), "bytes": self.bytes, "by_kind": self.by_kind}
        said |= {"left": self.left, "seconds": self.seconds, "problems": list(self.problems)}
        return {**said, "items": [item.to_dict() for item in self.items]}
