"""Objects to files and back, beside the library's own plain call with the same format, on the same disk.

"Without digest" means with one that does nothing: what is left is what a materializer itself adds.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measure import Bench, Row, alternate, process, row, working_in

from tailrace.materializers import files as digested
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.registry import default_registry, load, save

__all__ = ["rows"]

ROUNDS = 5


@dataclass(frozen=True)
class Subject:
    """A value, and how its library saves and loads it by a plain call; ``bytes`` is its size in memory."""

    name: str
    needs: tuple[str, ...]
    make: Callable[[], Any]
    save: Callable[[Any, Path], Any]
    load: Callable[[Path], Any]
    floor: str


def rows(bench: Bench) -> Iterator[Row]:
    """Save and load for each library; the description; small values; dispatch; what a run with arrays imports."""
    with working_in(bench.folder / "materializers"):
        for subject in SUBJECTS:
            if any(importlib.util.find_spec(name) is None for name in subject.needs):
                yield Row(subject.name, note="not installed")
                continue
            yield from _beside(subject)
        yield from _small()
        yield _dispatch()
        yield _imports(bench)


def _beside(subject: Subject) -> Iterator[Row]:
    value = subject.make()
    own = partial(_seconds, lambda path: subject.save(value, path))
    bare = Path("bare")
    subject.save(value, bare)
    for digest, most in (("", 1.5), (", without digest", 1.1)):
        with _no_digest() if digest else _as_it_is():
            figures, floors = alternate(ROUNDS, partial(_saved, value), own)
            yield row(f"{subject.name}: save{digest}", figures, "s", floors, subject.floor, most_ratio=most)
            with _stored(value) as again:
                figures, floors = alternate(ROUNDS, partial(_timed, again), partial(_timed, lambda: subject.load(bare)))
            yield row(f"{subject.name}: load{digest}", figures, "s", floors, subject.floor, most_ratio=most)
    bare.unlink() if bare.is_file() else shutil.rmtree(bare)
    described = [1000 * _timed(partial(_described, value)) for _ in range(ROUNDS)]
    yield row(f"{subject.name}: description", described, "ms", most=10)


def _described(value: Any) -> Any:
    found = default_registry.for_type(type(value))
    assert found is not None
    return found.describe(value)


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    kept = work()  # freed after the clock has stopped
    seconds = time.perf_counter() - begin
    del kept
    return seconds


def _seconds(work: Callable[[Path], Any]) -> float:
    place = Path("own")
    seconds = _timed(lambda: work(place))
    place.unlink() if place.is_file() else shutil.rmtree(place)
    return seconds


def _saved(value: Any) -> float:
    """Without the description, which has a row of its own."""
    folder = Path("ours")
    folder.mkdir()
    described, default_registry.for_type(type(value)).describe = _described_for_nothing(value)  # type: ignore[union-attr]
    try:
        return _timed(lambda: _save(value, folder))
    finally:
        default_registry.for_type(type(value)).describe = described  # type: ignore[union-attr]
        shutil.rmtree(folder)


def _described_for_nothing(value: Any) -> tuple[Any, Any]:
    found: Any = default_registry.for_type(type(value))
    return found.describe, lambda value: {}


def _save(value: Any, folder: Path) -> tuple[Any, Any]:
    writer = FileWriter(folder)
    return save(value, writer), writer.finish()


@contextmanager
def _stored(value: Any) -> Iterator[Callable[[], Any]]:
    folder = Path("stored")
    folder.mkdir()
    saved, entries = _save(value, folder)
    reader = FileReader(folder, {entry.path: entry for entry in entries})
    yield lambda: load(saved.materializer, saved.materializer_version, reader, saved.spec)
    shutil.rmtree(folder)


class _NoDigest:
    AUTO = -1

    def __init__(self, *data: Any, **options: Any) -> None: ...

    def update(self, data: Any) -> None: ...

    def update_mmap(self, path: Any) -> None: ...

    def hexdigest(self) -> str:
        return "0" * 64


@contextmanager
def _no_digest() -> Iterator[None]:
    real, digested.blake3 = digested.blake3, _NoDigest  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        digested.blake3 = real  # type: ignore[misc]


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


# --- what is measured -------------------------------------------------------------------------------------------------


def _numbers(count: int = 12_500_000) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal(count)


def _frame() -> Any:
    from handover import _frame as made

    return made()


def _grid() -> Any:
    import numpy as np
    import xarray as xr

    names = {f"v{place}": (("t", "x"), _numbers(6_250_000).reshape(2500, 2500)) for place in range(2)}
    return xr.Dataset(names, {"t": np.arange(2500)})  # arrays over 32 MB, whose memory the allocator does not keep


def _forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    data = _numbers(400_000).reshape(-1, 20)
    return RandomForestRegressor(20, random_state=0, n_jobs=2).fit(data, data[:, 0])


def _boosted() -> Any:
    import xgboost as xgb

    data = _numbers(400_000).reshape(-1, 20)
    return xgb.train({"max_depth": 8, "nthread": 2}, xgb.DMatrix(data, data[:, 0]), 400)


def _of(module: str, name: str) -> Callable[..., Any]:
    """A function of a library that is imported when it is called."""

    def call(*given: Any, **options: Any) -> Any:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found(*given, **options)

    return call


def _save_npy(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        _of("numpy", "save")(file, value)


def _save_grid(value: Any, path: Path) -> None:
    path.mkdir()
    for name, variable in value.variables.items():
        _save_npy(variable.to_numpy(), path / f"{name}.npy")


def _load_grid(path: Path) -> Any:
    import xarray as xr

    arrays = {file.stem: _of("numpy", "load")(file) for file in path.iterdir()}
    return xr.Dataset({name: (("t", "x")[: array.ndim], array) for name, array in arrays.items()})


def _load_booster(path: Path) -> Any:
    import xgboost as xgb

    return xgb.Booster(model_file=path.with_name("bare.ubj"))


def _save_booster(value: Any, path: Path) -> None:
    path.write_bytes(value.save_raw("ubj"))
    if path.name == "bare":
        shutil.copyfile(path, "bare.ubj")


def _load_forest(path: Path) -> Any:
    names = _of("skops.io", "get_untrusted_types")(file=path)
    return _of("skops.io", "load")(path, trusted=names)


SUBJECTS = (
    Subject("100 MB array", ("numpy",), _numbers, _save_npy, _of("numpy", "load"), "np.save, np.load"),
    Subject(
        "100 MB pandas frame",
        ("pandas", "pyarrow"),
        _frame,
        lambda value, path: value.to_parquet(path),
        _of("pandas", "read_parquet"),
        "to_parquet, read_parquet",
    ),
    Subject(
        "100 MB polars frame",
        ("polars", "pandas", "pyarrow"),
        lambda: _of("polars", "from_pandas")(_frame()),
        lambda value, path: value.write_parquet(path),
        _of("polars", "read_parquet"),
        "write_parquet, read_parquet",
    ),
    Subject(
        "100 MB Arrow table",
        ("pandas", "pyarrow"),
        lambda: _of("pyarrow", "Table.from_pandas")(_frame()),
        lambda value, path: _of("pyarrow.feather", "write_feather")(value, str(path), compression="uncompressed"),
        lambda path: _of("pyarrow.feather", "read_table")(str(path), memory_map=False),
        "write_feather, read_table",
    ),
    Subject("100 MB xarray", ("xarray", "pandas"), _grid, _save_grid, _load_grid, "np.save, np.load of each"),
    Subject(
        "forest", ("sklearn", "skops"), _forest, _of("skops.io", "dump"), _load_forest, "skops dump, audit and load"
    ),
    Subject("XGBoost", ("xgboost",), _boosted, _save_booster, _load_booster, "save_raw, Booster(file)"),
    Subject(
        "200,000 small dicts",
        (),
        lambda: [{"id": place, "name": f"n{place}", "share": place / 7} for place in range(200_000)],
        lambda value, path: path.write_bytes(_of("orjson", "dumps")(value)),
        lambda path: _of("orjson", "loads")(path.read_bytes()),
        "orjson",
    ),
)


def _small(count: int = 10_000) -> Iterator[Row]:
    values: list[Mapping[str, Any]] = [{"id": place, "share": place / 7} for place in range(count)]

    def ours() -> float:
        folder = Path("tiny")
        folder.mkdir()
        places = [folder / str(place) for place in range(count)]
        for place in places:
            place.mkdir()
        seconds = _timed(lambda: [_save(value, place) for value, place in zip(values, places, strict=True)])
        shutil.rmtree(folder)
        return 1e6 * seconds / count

    def plain() -> float:
        folder = Path("tiny")
        folder.mkdir()
        places = [folder / f"{place}.json" for place in range(count)]
        work = zip(values, places, strict=True)
        seconds = _timed(lambda: [place.write_text(json.dumps(value)) for value, place in work])
        shutil.rmtree(folder)
        return 1e6 * seconds / count

    figures, floors = alternate(3, ours, plain)
    yield row("10,000 tiny artifacts, each: digested and described", figures, "us", floors, "write_text(json.dumps())")


def _dispatch(count: int = 200_000) -> Row:
    kind, ask = dict, default_registry.for_type
    figures = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(count):
            ask(kind)
        figures.append(1e6 * (time.perf_counter() - begin) / count)
    return row("which materializer, warm", figures, "us", most=0.2)


_RUN = """
import sys, numpy as np
from tailrace import pipeline, step
@step
def make(): return np.arange(10)
@pipeline
def p(): make()
p.run(orchestrator="inline")
heavy = "pandas pyarrow polars sklearn skops mlflow prefect airflow sqlalchemy torch xarray".split()
print(*[name for name in heavy if name in sys.modules])
"""


def _imports(bench: Bench) -> Row:
    Path("numpy_run.py").write_text(_RUN)
    _, told = process(bench.python, "import sys; sys.path.insert(0, '.'); import numpy_run", Path.cwd())
    found = told.strip()
    return Row("heavy libraries that a run with arrays imports", note=found or "none", budget="none", ok=not found)
