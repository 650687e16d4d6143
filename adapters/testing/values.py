"""The battery's pipelines by what their steps return: values of every materializer, and artifacts of every type."""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from ...core.assets import Artifact, Checkpoint, Dataset, FeatureSet, Metrics, Model, Parameters, Prompt, Report
from ...core.pipeline import Pipeline, pipeline
from ...core.step import Step, step
from ..handle import current_run
from .case import Case

__all__ = ["CASES"]


class Size(enum.IntEnum):
    """An enum whose members are numbers."""

    SMALL = 1
    LARGE = 2


class Point(NamedTuple):
    """A named tuple."""

    x: float
    label: str


@dataclass(frozen=True)
class Settings:
    """A dataclass that holds another and more."""

    rate: float
    size: Size
    inner: Settings | None = None
    tags: frozenset[str] = field(default_factory=frozenset)


@step(
    outputs=[
        "nothing",
        "truth",
        "big",
        "numbers",
        "text",
        "raw",
        "nested",
        "sets",
        "times",
        "exact",
        "kinds",
        "classes",
        "tagged",
    ]
)
def plain() -> dict[str, Any]:
    return {
        "nothing": None,
        "truth": True,
        "big": 3**200,
        "numbers": [0, -1, 0.1, -0.0, math.inf, -math.inf, math.nan, 1e-320, 2 + 3j],
        "text": "ünï\n\0 \u2028 \\ / 'quoted' \"twice\"",
        "raw": bytes(range(256)),
        "nested": {"a": [1, (2, {"b": {3: None, (4, 5): [b"x", bytearray(b"y")]}})], 7: {}, None: []},
        "sets": ({"b", "a", "c"}, frozenset({3, 1, 2}), set()),
        "times": [
            date(2026, 1, 31),
            datetime(2026, 1, 31, 1, 2, 3, 4, tzinfo=UTC),
            datetime(2026, 1, 31, 1, 2, 3),  # noqa: DTZ001  # a naive one stays naive
            time(1, 2, 3),
            timedelta(days=-1, microseconds=1),
        ],
        "exact": [Decimal("1.10"), Decimal("NaN"), Fraction(1, 3), UUID(int=7)],
        "kinds": [OrderedDict(b=1, a=2), Counter("aab"), defaultdict(list, a=[1]), deque([1, 2], 3), range(3)],
        "classes": [Point(1.5, "p"), Size.LARGE, Settings(0.1, Size.SMALL, Settings(0.2, Size.LARGE, None))],
        "tagged": Settings(1.0, Size.SMALL, tags=frozenset({"z", "y", "x"})),
    }


@step(outputs=["floats", "empty", "texts", "times", "records", "masked", "scalars", "mixed"])
def numpy_values() -> dict[str, Any]:
    import numpy as np

    return {
        "floats": np.arange(12, dtype="<f4").reshape(3, 4).T,
        "empty": np.zeros((0, 3), dtype=bool),
        "texts": np.array(["a", "ünï"]),
        "times": np.array(["2026-01-31", "NaT"], dtype="datetime64[D]"),
        "records": np.array([(1, 2.5), (3, math.nan)], dtype=[("a", "<i2"), ("b", "<f8")]),
        "masked": np.ma.masked_equal(np.array([1, 2, 3]), 2),
        "scalars": [np.float32(0.1), np.int64(-5), np.bool_(True)],
        "mixed": {"x": np.eye(2), "y": [np.ones(1), 1]},
    }


@step(outputs=["frame", "no_rows", "series", "multi", "index", "stamp"])
def pandas_values() -> dict[str, Any]:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "whole": [1, 2, 3],
            "real": [0.5, None, 1.5],
            "text": ["a", None, "ü"],
            "when": pd.to_datetime(["2026-01-31", "NaT", "2026-02-01"]).tz_localize("UTC"),
            "kind": pd.Categorical(["x", "y", "x"], categories=["y", "x"], ordered=True),
        },
        index=pd.Index([3, 1, 2], name="id"),
    )
    return {
        "frame": frame,
        "no_rows": frame.iloc[:0],
        "series": pd.Series([1, None], dtype="Int64", name="s"),
        "multi": frame.set_index(["whole", "text"]),
        "index": pd.RangeIndex(1, 10, 3),
        "stamp": pd.Timestamp("2026-01-31 01:02:03.000000004"),
    }


@step(outputs=["table", "batch", "array"])
def arrow_values() -> dict[str, Any]:
    import pyarrow as pa

    table = pa.table({"a": [1, None], "b": [["x"], []], "c": [{"k": 1.5}, None]})
    return {"table": table, "batch": table.to_batches()[0], "array": pa.array([b"x", None])}


@step(outputs=["unfitted", "fitted", "model"])
def sklearn_models() -> dict[str, Any]:
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    return {
        "unfitted": LogisticRegression(C=0.5),
        "fitted": LinearRegression().fit(rows, labels),
        "model": Model(classifier.fit(rows, labels), name="classifier", version="2026.1", tags={"team": "ü"}),
    }


@step(outputs=["file", "folder", "listed"])
def files() -> dict[str, Any]:
    folder = Path(current_run().run.root) / "work"
    (folder / "tree" / "in ner" / "empty").mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("ünï\n", encoding="utf-8")
    (folder / "tree" / "data.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (folder / "tree" / "in ner" / "run.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "tree" / "in ner" / "run.sh").chmod(0o755)
    return {"file": folder / "notes.txt", "folder": folder / "tree", "listed": [folder / "notes.txt"]}


@step(
    outputs=[
        "dataset",
        "features",
        "model",
        "other_model",
        "checkpoint",
        "html",
        "markdown",
        "json",
        "pdf",
        "prompt",
        "chat",
        "artifact",
        "parameters",
        "metrics",
    ]
)
def assets() -> dict[str, Any]:
    rows = [{"id": 1, "at": "2026-01-31", "x": 0.5}, {"id": 2, "at": "2026-02-01", "x": None}]
    page = "<!doctype html><p>ünï</p>"
    return {
        "dataset": Dataset(rows, name="rows", schema={"id": "int", "x": "float"}, metadata={"source": "here"}),
        "features": FeatureSet(rows, name="features", entities=["id"], timestamp="at"),
        "model": Model({"w": [1.0]}, name="net", version="1.0", framework="own", tags={"stage": "try"}),
        "other_model": Model({"w": [2.0]}, name="net", input_schema={"x": "float"}, serving_config={"cpu": 1}),
        "checkpoint": Checkpoint({"w": [0.5], "seen": {1, 2}}, epoch=3, step=40, name="last"),
        "html": Report(page, name="page"),
        "markdown": Report("# Title\n", name="title"),
        "json": Report({"a": [1, None]}, name="data"),
        "pdf": Report(b"%PDF-1.4 nothing", name="print"),
        "prompt": Prompt("Say {word} to {{name}}.", name="greet"),
        "chat": Prompt([{"role": "user", "content": "{question}"}], name="ask", version="3"),
        "artifact": Artifact({"any": (1, b"x")}, name="thing"),
        "parameters": Parameters(lr=0.01, layers=[8, 4], note=None),
        "metrics": Metrics({"loss": math.nan, "rate of/it": 1}, name="start").at_step(0),
    }


@step
def measure(epoch: int, scale: float) -> Metrics:
    return Metrics(loss=scale / (epoch + 1), epoch=epoch).at_step(epoch)


@step
def best(first: Metrics, second: Metrics, each: list[Metrics]) -> Parameters:
    return Parameters(best=min(first["loss"], second["loss"], *(one["loss"] for one in each)))


@pipeline
def curve(scale: float = 2.0) -> None:
    """The same metric at several steps, of one step of the pipeline and of many."""
    best(measure(0, scale), measure(5, scale), measure.partial(scale=scale).map(epoch=[1, 2, 3]))


@step
def recording(count: int) -> int:
    run = current_run()
    folder = Path(run.run.root) / "work" / str(count)  # one of each task's own, since tasks may run at once
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"part {index}.csv").write_text(f"{index}\n")
        run.record_artifact(folder / f"part {index}.csv", kind="result")
    run.record_artifact(str(folder), name="all/of it")
    run.record_artifact({"count": count}, kind="note")
    run.record_artifact({"count": count + 1}, kind="note")
    run.record_artifact(Metrics(recorded=count), name="how many")
    return count


@pipeline
def recorded(count: int = 2) -> None:
    """Artifacts that steps record beside what they return."""
    same(recording(count))
    recording.map(count=[0])


@step
def same(value: Any) -> Any:
    return value


def _handed_on(made: Step[..., Any]) -> Pipeline:
    """All values out of one step, and each of them through another."""
    return Pipeline(made.name, function=lambda: same.map(value=list(made())))


CASES = {
    "plain values": Case(_handed_on(plain)),
    "numpy values": Case(_handed_on(numpy_values), needs=("numpy",)),
    "pandas values": Case(_handed_on(pandas_values), needs=("pandas", "pyarrow")),
    "arrow tables": Case(_handed_on(arrow_values), needs=("pyarrow",)),
    "sklearn models": Case(_handed_on(sklearn_models), needs=("sklearn", "skops")),
    "files and folders": Case(_handed_on(files)),
    "artifact types": Case(_handed_on(assets)),
    "a metric's curve": Case(curve),
    "recorded artifacts": Case(recorded),
}
"""The cases by name."""
