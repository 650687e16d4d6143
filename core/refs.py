"""What is passed around and written down: references, manifests, runs, routes. Frozen, and JSON both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

__all__ = [
    "ArtifactRef",
    "FileEntry",
    "Manifest",
    "Parent",
    "Producer",
    "Route",
    "Run",
    "artifact_id",
    "named_artifact",
]


def _flat(item: Any) -> dict[str, Any]:
    """The fields of a dataclass; ``dataclasses.asdict`` would copy what is in them, too."""
    return {name: getattr(item, name) for name in item.__slots__}


def _known(cls: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``data`` that are fields of ``cls``: a newer writer's additions are ignored by this reader."""
    return {key: value for key, value in data.items() if key in cls.__slots__}


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """What crosses an orchestrator: which artifact, where it is, and what it must hold. Under 1 KB as JSON.

    ``digest`` is that of the content, equal for equal bytes in any run; ``manifest_digest`` is that of the manifest,
    which in turn names the files' digests. ``length`` is the number of items of a list or tuple, for fan-out;
    ``created`` is when it was committed (UTC, ISO 8601), ``""`` where that is not known.
    """

    id: str
    uri: str
    digest: str
    manifest_digest: str
    type: str
    name: str
    length: int | None = None
    created: str = ""
    v: int = 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; :meth:`from_dict` is its inverse."""
        data = _flat(self)
        if self.length is None:
            del data["length"]
        if not self.created:
            del data["created"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reference that :meth:`to_dict` wrote."""
        return cls(**_known(cls, data))


def named_artifact(value: Any) -> tuple[str, str] | None:
    """The URI and content digest of the artifact that a value stands for; None where it stands for itself.

    That is a reference, its data (a dict with ``uri`` and ``digest``), or a URI with a scheme, whose digest is ``""``.
    """
    if isinstance(value, ArtifactRef):
        return value.uri, value.digest
    if isinstance(value, dict) and isinstance(value.get("uri"), str) and isinstance(value.get("digest"), str):
        return value["uri"], value["digest"]
    if isinstance(value, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://\S+$", value):
        return value, ""
    return None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: its path inside the artifact, its size in bytes and its digest."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Producer:
    """Who made an artifact."""

    project: str
    pipeline: str
    step: str
    output: str
    run_id: str
    map_index: int | None = None
    attempt: int = 1
    code_version: str = ""
    plan_version: str = ""
    orchestrator: str = ""


@dataclass(frozen=True, slots=True)
class Parent:
    """An artifact that another was made from: ``input`` is the parameter that received it."""

    id: str
    uri: str
    digest: str
    input: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The document beside the data, written last: an artifact exists when its manifest does.

    ``spec`` is what loading needs and is part of the content digest; ``metadata`` describes and is not.
    ``type`` is what routing sees ("Model", or a qualified class name); ``wrapper`` is the artifact type that is
    restored around the data, or ``""``; ``bare`` says that the step returned the data alone. Times are UTC in ISO 8601.
    """

    id: str
    name: str
    type: str
    materializer: str
    materializer_version: int
    digest: str
    content: str
    files: tuple[FileEntry, ...]
    created: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    wrapper: str = ""
    bare: bool = False
    version: str | None = None
    user_metadata: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    producer: Producer | None = None
    parents: tuple[Parent, ...] = ()
    format: int = 2

    @property
    def size_bytes(self) -> int:
        """Bytes of content, over all files."""
        return sum(entry.size for entry in self.files)

    def same_artifact(self, other: Manifest) -> bool:
        """Whether both say the same but for time, attempt and format: saving one over the other is a no-op."""
        return self._timeless() == other._timeless()

    def _timeless(self) -> dict[str, Any]:
        producer = replace(self.producer, attempt=0, orchestrator="") if self.producer else None
        return replace(self, created="", producer=producer, format=0).to_dict()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; :meth:`from_dict` is its inverse."""
        data = _flat(self)
        data["files"] = [_flat(entry) for entry in self.files]
        data["parents"] = [_flat(parent) for parent in self.parents]
        data["producer"] = _flat(self.producer) if self.producer else None
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The manifest that :meth:`to_dict` wrote."""
        known = _known(cls, data)
        known["files"] = tuple(FileEntry(**_known(FileEntry, entry)) for entry in data["files"])
        known["parents"] = tuple(Parent(**_known(Parent, parent)) for parent in data.get("parents", ()))
        producer = data.get("producer")
        known["producer"] = Producer(**_known(Producer, producer)) if producer else None
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a pipeline, as a task sees it.

    ``run_id`` is logical (the user's, else the engine's own) and names paths and records; ``native_id`` is the
    engine's. ``started`` (UTC) is the same in every process of the run, so that it never splits over two dates;
    ``opened`` is when this execution began, later than ``started`` when a run id is used again.
    ``stack`` and ``config`` let another process find the same destinations.
    """

    run_id: str
    pipeline: str
    project: str
    started: datetime
    stack: str
    orchestrator: str
    root: str
    config: str | None = None
    native_id: str = ""
    opened: datetime | None = None
    attempt: int = 1
    map_index: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def date(self) -> str:
        """The day of the start, in UTC, as ``YYYY-MM-DD``."""
        return self.started.astimezone(UTC).date().isoformat()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; :meth:`from_dict` is its inverse."""
        opened = self.opened.isoformat() if self.opened else None
        return {**_flat(self), "started": self.started.isoformat(), "opened": opened, "v": 1}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The run that :meth:`to_dict` wrote."""
        known = _known(cls, data)
        known["started"] = datetime.fromisoformat(data["started"])
        known["opened"] = datetime.fromisoformat(data["opened"]) if data.get("opened") else None
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Route:
    """Where one output goes, decided from its type, the rules and the stack. ``tailrace explain`` prints it.

    ``store`` is a name in the stack, ``path`` a key below that store's root. ``tracker``, ``registry`` and
    ``deployer`` are the component's type, or ``None`` where the output does not go there. ``gate`` says under which
    condition a model is deployed. ``rule`` names what decided. ``format`` and ``compression`` are for tables.
    """

    type: str
    store: str
    path: str
    tracker: str | None = None
    registry: str | None = None
    deployer: str | None = None
    gate: str = ""
    on_error: str = "fail"
    rule: str = "built-in"
    format: str | None = None
    compression: str | None = None


def artifact_id(project: str, run_id: str, step: str, output: str, map_index: int | None = None) -> str:
    """Sixteen hex digits that name an output of a task of a run: the same on every engine, and for every attempt."""
    import hashlib

    text = f"{project}\0{run_id}\0{step}\0{output}\0{'' if map_index is None else map_index}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
