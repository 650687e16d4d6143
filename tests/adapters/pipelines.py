"""The pipelines that every engine must run alike, and how to compare what two runs left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tailrace import Dataset, Metrics, Model, Pipeline, context, pipeline, step
from tailrace.core.refs import Manifest


@step(outputs=["data"])
def load_data(size: int = 4) -> Dataset:
    return Dataset([{"x": index, "y": 2.0 * index} for index in range(size)], name="rows")


@step(outputs=["train", "test"])
def split(data: Dataset) -> tuple[Dataset, Dataset]:
    rows = data.data
    return Dataset(rows[:-1], name="rows-train"), Dataset(rows[-1:], name="rows-test")


@step(outputs=["model"])
def fit(rows: list[dict[str, float]], lr: float) -> Model:
    return {"slope": sum(row["y"] for row in rows) * lr}  # type: ignore[return-value]  # wrapped as declared


@step
def best(models: list[Model]) -> Model:
    return max(models, key=lambda model: model.data["slope"])


@step
def score(model: Model, test: Dataset) -> Metrics:
    return Metrics(slope=model.data["slope"], rows=len(test.data)).at_step(3)


@pipeline
def diamond(size: int = 4, rates: list[float] = [0.1, 0.2, 0.3]) -> None:  # noqa: B006  # never changed
    train, test = split(load_data(size))
    score(best(fit.partial(rows=train).map(lr=rates)), test)


chain = (
    Pipeline("chain", context=context(lr=0.01))
    .add_step(load_data)
    .add_step(step(inputs=["data"], outputs=["model"])(fit.fn), name="fit")
    .add_step(step(inputs=["model", "data"])(score.fn))
)


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step(outputs=["square", "negative"])
def both(x: int, factor: int) -> tuple[int, int]:
    return x * x * factor, -x


@step
async def total(squares: list[int], negatives: list[int]) -> int:
    return sum(squares) + sum(negatives)


@step
def half(x: int) -> float:
    return x / 2


@pipeline
def fan(count: int = 4) -> Any:
    done = both.partial(factor=10).map(x=numbers(count))
    half.map(x=done.square)
    return total(done.square, done.negative)


ALL = {"diamond": diamond, "chain": chain, "fan": fan}


def left_behind(root: Path, run_id: str) -> dict[str, Any]:
    """What a run left in a store: every path, and of every manifest all that must be the same on any engine."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            name = path.relative_to(root).as_posix().replace(run_id, "RUN")
            found[name] = _said(path, run_id) if path.name == "manifest.json" else ""
    return found


def _said(path: Path, run_id: str) -> dict[str, Any]:
    manifest = Manifest.from_dict(orjson.loads(path.read_bytes()))
    producer = manifest.producer
    assert producer is not None
    return {
        "name": manifest.name,
        "type": manifest.type,
        "digest": manifest.digest,
        "materializer": manifest.materializer,
        "metadata": manifest.metadata,
        "step": (producer.pipeline, producer.step, producer.output, producer.map_index, producer.code_version),
        "parents": [(parent.input, parent.digest, parent.uri.rpartition("/data/")[2]) for parent in manifest.parents],
    }
