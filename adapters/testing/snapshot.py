"""What a run left behind, as far as it must be the same on any engine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ...catalog.index import Catalog
from ...core.names import segment
from ...routing.mlflow_backend import MlflowBackend
from ...stores.local import LocalArtifactStore

__all__ = ["STORE", "Snapshot", "left_behind"]

STORE = ".tailrace/artifacts"
"""The store below a project's folder."""

_TIMES_AND_TRIES = {
    "manifest.json": {"created", "checksum", "producer.attempt", "producer.orchestrator"},
    "run.json": {"run.started", "run.opened", "run.attempt", "run.orchestrator", "run.native_id"},
    "result.json": {"ended", "seconds"},
    "steps": {"started", "seconds", "load", "compute", "attempt", "native_id"},
    "_runs": {"started"},
}
"""What differs between any two runs, by the record's name or folder. Of timings only the bytes are kept."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a run left in a project of its own, but for what no two runs share.

    ``files`` has every path of the store, with its records as data and of other files the digest; ``lineage`` each
    artifact with its neighbours, as the catalog exports it; ``tracker`` MLflow's runs and model versions.
    """

    files: Mapping[str, Any]
    lineage: Mapping[str, Any]
    tracker: Mapping[str, Any]

    def differences(self, other: Snapshot) -> list[str]:
        """Where the two differ, one line each: the place, what is here, and what is there."""
        return list(_differing(vars(self), vars(other), ""))


def left_behind(project: Path, run_id: str | None = None) -> Snapshot:
    """What a run left in a project's folder; without ``run_id``, everything that is there.

    Left out are times, attempts, and the engine's name and ids; the project's folder, the run's date, and MLflow's ids
    are replaced by words, and so are the numbers of model versions, which steps that run at once take in any order.
    Where nothing ran it holds nothing. Store and MLflow's database are where a stack without other settings has them.
    """
    tracker, runs = _tracked(project, run_id)
    plain = _Plain(project, runs)
    records = _records(project / STORE, run_id)
    return Snapshot(plain.of(records), plain.of(_lineage(project, run_id)), plain.of(tracker))


# --- the store --------------------------------------------------------------------------------------------------------


def _records(store: Path, run_id: str | None) -> dict[str, Any]:
    """Every file by its path, and every folder in which there is nothing."""
    found: dict[str, Any] = {}
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if run_id is not None and segment(run_id) not in name.removesuffix(".json").split("/"):
            continue
        if path.is_file():
            found[name] = _said(path, name)
        elif not any(path.iterdir()):
            found[f"{name}/"] = "empty"
    return found


def _said(path: Path, name: str) -> Any:
    """A record as data, or the digest of a file of an artifact."""
    content = path.read_bytes()
    if "/content-" in name or path.suffix not in {".json", ".jsonl"}:
        return hashlib.sha256(content).hexdigest()
    if path.suffix == ".jsonl":
        return [_without(orjson.loads(line), {"manifest_digest", "created"}) for line in content.splitlines()]
    record = orjson.loads(content)
    kind = next(
        (kind for kind in (path.name, path.parent.name, name.partition("/")[0]) if kind in _TIMES_AND_TRIES), ""
    )
    said = _without(record, _TIMES_AND_TRIES.get(kind, set()))
    if kind == "steps":
        said |= _task(said)
    return said


def _task(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "outputs": {name: _without(ref, {"manifest_digest", "created"}) for name, ref in said["outputs"].items()},
        "extra": [_without(ref, {"manifest_digest", "created"}) for ref in said["extra"]],
        "timings": {name: spent["bytes"] for name, spent in said["timings"].items()},
        "destinations": {
            name: {kind: re.sub(r"/\d+$", "/N", place) if kind == "registry" else place for kind, place in to.items()}
            for name, to in said["destinations"].items()
        },
    }


def _without(record: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The record without these keys; ``a.b`` is ``b`` inside ``a``."""
    inner = {name.partition(".")[0] for name in names if "." in name and record.get(name.partition(".")[0])}
    return {
        key: _without(value, {name.removeprefix(f"{key}.") for name in names}) if key in inner else value
        for key, value in record.items()
        if key not in names
    }


# --- the catalog and the tracker --------------------------------------------------------------------------------------


def _lineage(project: Path, run_id: str | None) -> dict[str, Any]:
    with Catalog("sqlite://", {"default": LocalArtifactStore(project / STORE)}) as catalog:
        report = catalog.sync()
        graphs = {row.id: catalog.lineage(row.id, depth=1).to_dict() for row in catalog.artifacts(run_id)}
    for graph in graphs.values():
        graph["nodes"] = [_without(node, {"created", "version"}) for node in graph["nodes"]]  # counted by time
    return {"problems": list(report.problems), "graphs": dict(sorted(graphs.items()))}


def _tracked(project: Path, run_id: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What MLflow has, and a word for each of its runs' ids."""
    backend = MlflowBackend(None, None, project)
    if not (project / ".tailrace" / "mlflow.db").exists():
        return {}, {}
    with backend.client("looking at what was left") as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = [run for run in client.search_runs(experiments) if _of(run.data.tags, run_id)]
        versions = [version for version in client.search_model_versions() if _of(version.tags, run_id)]
        tracked = [_run(client, run) for run in runs]
    numbers: dict[str, list[int]] = {}
    for version in versions:
        numbers.setdefault(version.name, []).append(int(version.version))
    return {
        "runs": tracked,
        "versions": sorted((_version(version) for version in versions), key=repr),
        "numbers": {name: sorted(found) for name, found in sorted(numbers.items())},
    }, {run.info.run_id: "MLFLOW-RUN" for run in runs}


def _of(tags: Mapping[str, str], run_id: str | None) -> bool:
    return run_id is None or tags.get("tailrace.run_id") == run_id


def _run(client: Any, run: Any) -> dict[str, Any]:
    data = run.data
    return {
        "name": run.info.run_name,
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "status": run.info.status,
        "params": dict(sorted(data.params.items())),
        "metrics": {
            name: sorted((entry.step, repr(entry.value)) for entry in client.get_metric_history(run.info.run_id, name))
            for name in sorted(data.metrics)
        },
        "tags": {name: tag for name, tag in sorted(data.tags.items()) if name != "tailrace.orchestrator"},
    }


def _version(version: Any) -> dict[str, Any]:
    return {
        "name": version.name,
        "status": version.status,
        "source": version.source,
        "run": version.run_id,
        "tags": dict(sorted(version.tags.items())),
    }


# --- comparing --------------------------------------------------------------------------------------------------------


class _Plain:
    """Replaces what names the folder, the day or MLflow's run in any text of a document."""

    def __init__(self, project: Path, words: Mapping[str, str]) -> None:
        places = {project.absolute(), project.resolve()}
        texts = {text for place in places for text in (place.as_uri(), str(place))}
        self._words = {**dict.fromkeys(sorted(texts, key=len, reverse=True), "PROJECT"), **words}

    def of(self, document: Any) -> Any:
        if isinstance(document, Mapping):
            return {self._text(key): self.of(value) for key, value in document.items()}
        if isinstance(document, list | tuple):
            return [self.of(item) for item in document]
        return self._text(document) if isinstance(document, str) else document

    def _text(self, text: str) -> str:
        for found, word in self._words.items():
            text = text.replace(found, word)
        return re.sub(r"(?<=/)\d{4}-\d\d-\d\d(?=/)", "DATE", text)


def _differing(here: Any, there: Any, place: str) -> Iterator[str]:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in dict.fromkeys([*here, *there]):
            inner = f"{place}[{key!r}]" if place else str(key)
            if key not in there:
                yield f"{inner}: {_short(here[key])} | nothing"
            elif key not in here:
                yield f"{inner}: nothing | {_short(there[key])}"
            else:
                yield from _differing(here[key], there[key], inner)
    elif isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        for index, (one, other) in enumerate(zip(here, there, strict=True)):
            yield from _differing(one, other, f"{place}[{index}]")
    elif here != there:
        yield f"{place}: {_short(here)} | {_short(there)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."
