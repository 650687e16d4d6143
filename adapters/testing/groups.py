"""The battery's pipelines with steps that share a task. Importing this runs nothing."""

from __future__ import annotations

from typing import Any

from ...core.assets import Dataset, Metrics, Model
from ...core.errors import StepSkipped
from ...core.pipeline import Pipeline, context, pipeline
from ...core.ref import Ref
from ...core.step import step
from ..handle import current_run
from .case import Case

__all__ = ["CASES"]


@step(outputs=["train", "test"], group="prepare")
def load(size: int = 4) -> tuple[Dataset, Dataset]:
    rows = [{"x": index, "y": 2.0 * index} for index in range(size)]
    return Dataset(rows, name="train"), Dataset(rows[-1:], name="test")


@step(group="prepare")
def scaled(train: list[dict[str, float]]) -> list[dict[str, float]]:
    for row in train:
        row["x"] *= 10  # in place: whoever else takes it has its own
    return train


@step(group="prepare")
def total(train: list[dict[str, float]], scaled: Ref[list[dict[str, float]]]) -> dict[str, float]:
    return {"x": sum(row["x"] for row in train), "scaled": sum(row["x"] for row in scaled.load())}


@step
def fit(scaled: list[dict[str, float]], total: dict[str, float]) -> Model:
    return {"slope": sum(row["y"] for row in scaled) / total["scaled"]}  # type: ignore[return-value]  # wrapped as declared


@step(group="judge")
async def score(model: Model, test: Dataset) -> Metrics:
    return Metrics(slope=model.data["slope"], rows=len(test.data))


@step(group="judge")
def verdict(score: dict[str, float], models: list[Model]) -> str:
    return f"{score['slope']:.3f} of {len(models)}"


@pipeline
def prepare(size: int = 4) -> None:
    """Two groups, a step between them, and one output that both of two members take."""
    made: Any = load(size)
    train, test = made
    rows: Any = scaled(train)
    model = fit(rows, total(train, rows))
    scored: Any = score(model, test)
    alone = total.with_options(group=None, name="again")
    verdict(scored, [model, fit(rows, alone(train, rows))])


@step(outputs=["count"])
def counted(size: int) -> list[int]:
    return list(range(size))


@step(group="item")
def half(number: int, by: int = 2) -> float:
    if number == 3:
        raise StepSkipped("three is odd")
    return number / by


@step(group="item", outputs=["low", "high"])
def bounds(value: float | None, margin: float) -> tuple[float, float]:
    return (value or 0.0) - margin, (value or 0.0) + margin


@step
def widest(low: list[float], high: list[float], halves: list[float]) -> float:
    return max((b - a for a, b in zip(low, high, strict=True)), default=0.0) + len(halves)


@pipeline
def items(size: int, margin: float = 0.5) -> None:
    """A group that runs once per item, of which one member skips an item."""
    halves = half.map(counted(size))
    low, high = bounds.partial(margin=margin).map(halves)
    widest(low, high, halves)


@step(group="shaky", retries=2)
def shaky(numbers: list[int]) -> list[int]:
    numbers.append(0)
    attempt = current_run().run.attempt
    if attempt < 3:
        raise OSError(f"try {attempt}")
    return numbers


@step(group="shaky")
def length(numbers: list[int]) -> int:
    return len(numbers)


retried = (
    Pipeline("retried", context=context(size=3))
    .add_step(counted.with_options(group="shaky"))
    .add_step(shaky.with_options(inputs=["count"], outputs=["longer"]))
    .add_step(length.with_options(inputs=["longer"]))
)


@step(group="failing")
def first() -> int:
    return 1


@step(group="failing", retries=1)
def second(number: int) -> int:
    raise ValueError(f"{number} is wrong")


@step(group="failing")
def third(number: int) -> int:
    return number


@step
def after(number: int) -> int:
    return number


@pipeline
def failing() -> None:
    """A member fails in vain: what follows in its task and after it does not run, what was before is kept."""
    one = first()
    third(second(one))
    after(one)


@pipeline
def item_failing() -> None:
    """One item of a group fails."""
    value = half.with_options(group="each").map([0, 1, 2])
    after.with_options(group="each").map(second_is_wrong.map(value))


@step(group="each")
def second_is_wrong(number: float) -> int:
    if current_run().run.map_index == 1:
        raise ValueError("the second item is wrong")
    return int(number)


@pipeline
def unneeded(wanted: bool = False) -> None:
    """A group all of whose members are skipped, and one that runs nevertheless."""
    one = first.when(wanted)()
    third.with_options(name="needs")(one)
    after(one)
    verdict.with_options(name="kept", group="failing")(otherwise(one), [])


@step(group="failing")
def otherwise(number: int | None = None) -> dict[str, float]:
    return {"slope": float(number or 7)}


CASES = {
    "groups": Case(prepare),
    "a group of items": Case(items, {"size": 5}),
    "a group over nothing": Case(items, {"size": 0}),
    "retries in a group": Case(retried),
    "a group fails": Case(failing, fails="ValueError: 1 is wrong"),
    "an item of a group fails": Case(item_failing, fails="ValueError: the second item is wrong"),
    "a group is skipped": Case(unneeded),
    "a group runs": Case(unneeded, {"wanted": True}),
}
"""The cases by name."""
