"""From the producer's return until the consumer has the data: stored, digested, recorded, loaded, verified."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import Bench, Row, alternate, row, working_in

from tailrace import Pipeline, pipeline, step

__all__ = ["CONFIG", "rows"]

CONFIG = """\
active_stack: quick
stacks:
  quick:
    artifact_store: {type: local, path: .tailrace/artifacts, durable: false}
  durable:
    artifact_store: {type: local, path: .tailrace/artifacts}
"""


def rows(bench: Bench) -> Iterator[Row]:
    """An array of 200 MB beside npy files, a frame of 100 MB beside Parquet files, on the same disk."""
    with working_in(bench.folder / "handover", CONFIG):
        if _missing("numpy"):
            yield Row("200 MB array, step to step", note="not installed", budget="<= 1.5x")
            return
        value = _array()
        values, floors = alternate(9, partial(_handed, _relay(value), "quick"), partial(_npy, value, False))
        yield row("200 MB array, step to step", values, "s", floors, "np.save + np.load", most_ratio=1.5)
        values, floors = alternate(5, partial(_handed, _relay(value), "durable"), partial(_npy, value, True))
        yield row("200 MB array, durable", values, "s", floors, "np.save, flushed, + np.load")
        if _missing("pandas", "pyarrow"):
            yield Row("100 MB DataFrame, step to step", note="not installed", budget="<= 1.1x")
            return
        value = _frame()
        values, floors = alternate(9, partial(_handed, _relay(value), "quick"), partial(_parquet, value))
        yield row("100 MB DataFrame, step to step", values, "s", floors, "to_parquet + read_parquet", most_ratio=1.1)


def _missing(*modules: str) -> bool:
    return any(importlib.util.find_spec(module) is None for module in modules)


def _array() -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal(25_000_000)


def _frame() -> Any:
    """Numbers, whole numbers, times and words: 8 bytes a cell, 100 MB."""
    import numpy as np
    import pandas as pd

    rng, count = np.random.default_rng(0), 1_300_000
    columns: dict[str, Any] = {f"number-{index}": rng.standard_normal(count) for index in range(7)}
    columns["whole"] = rng.integers(0, 1000, count)
    columns["time"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**9, count), unit="s")
    columns["word"] = pd.Series(rng.choice(["north", "east", "south", "west"], count), dtype="str")
    return pd.DataFrame(columns)


_moments: list[float] = []


def _relay(value: Any) -> Pipeline:
    """Two steps; each notes the moment in which the value leaves and arrives."""

    def produce() -> Any:
        _moments.append(time.perf_counter())
        return value

    def consume(data: Any) -> int:
        _moments.append(time.perf_counter())
        return len(data)

    @pipeline(name="relay")
    def made() -> None:
        step(consume)(step(produce)())

    return made


def _handed(relay: Pipeline, stack: str) -> float:
    _moments.clear()
    relay.run(orchestrator="inline", stack=stack)
    shutil.rmtree(".tailrace")
    return _moments[1] - _moments[0]


def _npy(value: Any, durable: bool) -> float:
    import numpy as np

    def work(path: Path) -> Any:
        with path.open("wb") as file:
            np.save(file, value)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        return np.load(path)

    return _seconds(work, Path("bare.npy"))


def _parquet(value: Any) -> float:
    import pandas as pd

    def work(path: Path) -> Any:
        value.to_parquet(path)
        return pd.read_parquet(path)

    return _seconds(work, Path("bare.parquet"))


def _seconds(work: Callable[[Path], Any], path: Path) -> float:
    begin = time.perf_counter()
    kept = work(path)  # freed after the clock has stopped, as in a step
    seconds = time.perf_counter() - begin
    del kept
    path.unlink()
    return seconds
