"""The battery's pipelines in which steps are skipped: by a condition, by themselves, or with what they need."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.assets import Metrics, Model
from ...core.errors import StepSkipped
from ...core.pipeline import Pipeline, context, pipeline
from ...core.step import step
from ..handle import current_run
from .case import Case
from .pipelines import boom, numbers, together

__all__ = ["CASES"]


@step
def many(values: list[int]) -> bool:
    return len(values) > 3


@step
def kind(values: list[int]) -> str:
    return "good" if len(values) > 3 else "poor"


@step
def train(values: list[int]) -> Model:
    return Model({"mean": sum(values) / max(len(values), 1)}, name="trained")


@step
def baseline(values: list[int]) -> Model:
    return Model({"mean": 0.0}, name="baseline")


@step
def tune(model: Model, rate: float = 0.5) -> Model:
    return Model({"tuned": model.data["mean"] * rate}, name="tuned")


@step
def choose(models: list[Model]) -> Metrics:
    return Metrics(models=len(models), best=max((sum(model.data.values()) for model in models), default=-1))


@step
def perhaps(model: Model | None, other: Model | str = "the default") -> str:
    return f"{model is None} {other if isinstance(other, str) else other.data}"


@step
def count(models: Sequence[Model] = ()) -> int:
    return len(models)


@pipeline
def branches(size: int = 5) -> None:
    """One of two branches, and steps after it that need both, either or none."""
    values = numbers(size)
    trained = train.when(many(values))(values)
    simple = baseline.when(kind(values), equals="poor")(values)
    tuned = tune(trained)
    choose([trained, simple, tuned])
    perhaps(tuned, simple)
    count([train.when(False)(values), baseline.when(size, equals=-1)(values)])
    choose.with_options(name="of none")([train.when(False)(values)])


by_names = (
    Pipeline("branches by names", context=context(count=5, wanted="poor"))
    .add_step(numbers)
    .add_step(step(inputs=["numbers"])(kind.fn))
    .add_step(step(inputs=["numbers"])(train.fn), when={"kind": "good"})
    .add_step(step(inputs=["numbers"])(baseline.fn), when={"wanted": "good"})
    .add_step(step(inputs=["train", "baseline"])(perhaps.fn))
)


@step(retries=2, retry_delay=0.01)
def halve(x: int) -> int:
    current_run().record_artifact({"x": x}, name="note")
    if x % 2:
        raise StepSkipped(f"{x} is odd")
    return x // 2


@step
def small(x: int) -> bool:
    return x < 2


@step
def double(x: int) -> int:
    return 2 * x


@pipeline
def skipped_items(size: int = 5, go: bool = False) -> None:
    """Items that are skipped by themselves, by a condition of each or of all, and with the item before them."""
    values = numbers(size)
    together(double.map(halve.map(values)))
    together(double.when(small.map(values)).map(values))
    together(double.when(go).map(values))
    halve(1)


@pipeline
def skipped_fan_out(size: int = 0) -> None:
    """What decides a fan-out is skipped, and with it all of the fan-out and what comes after."""
    values = numbers.when(size)(size)
    doubled = double.map(values)
    together(doubled)
    double.map([together(values), together(numbers(2))])
    train(values)


@pipeline
def branch_failing(size: int = 2) -> None:
    """What comes after a failure does not run, though it could do without a skipped input."""
    values = numbers(size)
    lost = boom(values)
    perhaps(train.when(many(values))(values), train.when(lost)(values))
    double.when(lost).map(values)
    choose([tune(train.when(False)(values)), baseline(values)])


CASES = {
    "a branch": Case(branches),
    "the other branch": Case(branches, {"size": 2}),
    "branches by names": Case(by_names),
    "skipped items": Case(skipped_items),
    "a skipped fan-out": Case(skipped_fan_out),
    "a branch fails": Case(branch_failing, fails="ValueError: 2 values are too many"),
}
"""The cases by name."""
