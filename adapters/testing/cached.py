"""The battery's pipelines of cached steps: each step runs twice, and the second time takes what the first has made."""

from __future__ import annotations

from typing import Any

from ...core.assets import Dataset, Metrics, Model, Parameters
from ...core.pipeline import pipeline
from ...core.ref import Ref
from ...core.step import step
from ..handle import current_run
from .case import Case

__all__ = ["CASES"]


@step(outputs=["rows"])
def rows(count: int) -> Dataset:
    return Dataset([{"x": x, "y": 2.0 * x} for x in range(count)], name="points", metadata={"unit": "m"})


@step(cache=True, outputs=["model", "scores", "settings"])
def fit(rows: Dataset, rate: float) -> tuple[Model, Metrics, Parameters]:
    current_run().record_artifact({"seen": len(rows.data)}, kind="note")
    slope = rate * sum(row["y"] for row in rows.data)
    return Model({"slope": slope}, name="line"), Metrics(slope=slope, rows=len(rows.data)), Parameters(rate=rate)


@step(cache=True, outputs=["same", "size"])
def passed(rows: Ref[Dataset]) -> tuple[Any, int]:
    return rows, len(rows.load().data)


@pipeline
def twice(count: int = 4, rate: float = 0.5) -> None:
    """Several outputs, a model, what trackers are told, what is recorded beside, and an artifact handed on."""
    data: Any = rows(count)
    _, scores, _ = fit(data, rate)
    fit.with_options(name="refit").when(scores)(data, rate)
    _, size = passed(data)
    passed.with_options(name="passed again").when(size)(data)


@step(cache=True, outputs=["root"])
async def root(number: float, note: str | None = None) -> float:
    if number < 0:
        raise ValueError(f"{number} has no root")
    return float(number**0.5)


@step(outputs=["total"])
def total(roots: list[float]) -> float:
    return sum(roots)


@step(outputs=["note"])
def said(count: int) -> str:
    return f"{count} of them"


@pipeline
def items(wanted: bool = False) -> None:
    """Items that are asynchronous, each with an entry of its own; an input that is skipped both times."""
    note = said.when(wanted)(3)
    first = total(root.partial(note=note).map(number=[4.0, 9.0, 16.0]))
    root.with_options(name="again").when(first).partial(note=note).map(number=[16.0, 25.0, 4.0])


@pipeline
def failing(number: float = -1.0) -> None:
    """What fails is not kept."""
    _: Any = root(number)


CASES = {
    "cached steps": Case(twice),
    "cached items": Case(items),
    "a cached step that fails": Case(failing, fails="has no root"),
}
"""The cases by name."""
