"""The catalog at size: 1,000,000 artifacts of 20,000 runs, asked by id, by digest and for lineages of 1,000."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tailrace.catalog.index import Catalog
from tailrace.catalog.write import Found, write_artifacts
from tailrace.core.refs import FileEntry, Manifest, Parent, Producer
from tailrace.stores.local import LocalArtifactStore

__all__ = ["bench"]

_PER_RUN = 50
_BATCH = 20_000
_START = datetime(2026, 3, 1, tzinfo=UTC)


def bench(artifacts: int = 1_000_000) -> list[dict[str, Any]]:
    """Rows of ``name, value, unit, budget``. Times are medians; filling takes a minute or two."""
    with tempfile.TemporaryDirectory() as folder:
        stores = {"default": LocalArtifactStore(Path(folder, "store"), durable=False)}
        with Catalog(f"sqlite:///{folder}/catalog.db", stores) as catalog:
            catalog.sync()
            begin = time.perf_counter()
            runs = artifacts // _PER_RUN
            _write(catalog, (item for run in range(runs) for item in _run(run)))
            for run, (_, links) in enumerate(_SHAPES, runs):
                _write(catalog, (_made(run, index, links(index)) for index in range(1000)))
            filled = time.perf_counter() - begin
            size = Path(folder, "catalog.db").stat().st_size / 1e6
            known = [_made(run, 7, ()).manifest for run in range(0, runs, max(1, runs // 200))]
            rows = [
                _row("catalog: by id", _median(lambda of: catalog.artifact(of.id), known), 1.0),
                _row("catalog: by digest", _median(lambda of: catalog.artifact(of.digest), known), 1.0),
                _row("catalog: artifacts of a run", _median(lambda of: _of_run(catalog, of), known[:50])),
                _row("catalog: the 50 newest", _median(lambda _: catalog.artifacts(limit=50), known[:20])),
            ]
            for run, (name, _) in enumerate(_SHAPES, runs):
                middle = _made(run, 500, ()).manifest.id
                assert len(catalog.lineage(middle).nodes) == 1000
                rows.append(_row(f"catalog: lineage of 1,000 ({name})", _median(catalog.lineage, [middle] * 20), 50.0))
            rows.append({"name": "catalog: filling", "value": filled, "unit": "s", "budget": None})
            rows.append({"name": "catalog: size", "value": size, "unit": "MB", "budget": None})
    return rows


def _of_run(catalog: Catalog, of: Manifest) -> None:
    assert of.producer is not None
    catalog.artifacts(run_id=of.producer.run_id)


def _chain(index: int) -> Sequence[int]:
    return [index - 1] if index else []


def _fan(index: int) -> Sequence[int]:
    """One, of which 498 were made, of which one (the 500th) was made, of which the rest were."""
    return [] if not index else [0] if index < 500 else range(1, 500) if index == 500 else [500]


def _mesh(index: int) -> Sequence[int]:
    """Each from the three before it."""
    return range(max(0, index - 3), index)


_SHAPES = [("chain", _chain), ("fan", _fan), ("mesh", _mesh)]


def _run(run: int) -> Iterator[Found]:
    return (_made(run, index, [index // 2] if index else []) for index in range(_PER_RUN))


def _made(run: int, index: int, parents: Sequence[int]) -> Found:
    run_id = f"run{run}"
    uri = f"file:///data/artifacts/project/2026-03-01/{run_id}/data/step{index}/output{index}"
    digest = f"blake3:{abs(hash((run_id, index))):064x}"
    manifest = Manifest(
        id=f"{abs(hash((index, run_id))):016x}",
        name=f"output{index}",
        type="pandas.DataFrame",
        materializer="pandas",
        materializer_version=1,
        digest=digest,
        content="content",
        files=(FileEntry("data.parquet", 1000, digest),),
        created=(_START + timedelta(minutes=run, seconds=index)).isoformat(),
        producer=Producer("project", "pipeline", f"step{index}", f"output{index}", run_id, code_version="0123456789ab"),
        parents=tuple(Parent(f"{abs(hash((of, run_id))):016x}", uri, digest, f"input{of}") for of in parents),
    )
    return Found("default", uri, digest, manifest)


def _write(catalog: Catalog, found: Iterator[Found]) -> None:
    batch: list[Found] = []
    for item in found:
        batch.append(item)
        if len(batch) == _BATCH:
            _write_batch(catalog, batch)
            batch = []
    _write_batch(catalog, batch)


def _write_batch(catalog: Catalog, batch: Sequence[Found]) -> None:
    with catalog._database.writing() as connection:
        write_artifacts(connection, catalog._scope, batch)


def _median(ask: Callable[[Any], object], of: Sequence[Any]) -> float:
    """Milliseconds."""
    times = []
    for item in of:
        begin = time.perf_counter()
        ask(item)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def _row(name: str, value: float, budget: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "ms", "budget": budget}


if __name__ == "__main__":
    for row in bench():
        print(row)
