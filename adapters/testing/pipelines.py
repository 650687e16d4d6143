"""The battery's pipelines by how they are wired and how they end. Importing this runs nothing."""

from __future__ import annotations

import enum
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from ...core.assets import Dataset, Metrics, Model
from ...core.pipeline import Pipeline, context, pipeline
from ...core.ref import Ref
from ...core.step import step
from ..handle import current_run
from .case import Case

__all__ = ["CASES", "boom", "chain", "diamond", "fan", "numbers", "together"]

# --- wiring -----------------------------------------------------------------------------------------------------------


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


chain = (
    Pipeline("chain", context=context(lr=0.01))
    .add_step(load_data)
    .add_step(step(inputs=["data"], outputs=["model"])(fit.fn), name="fit")
    .add_step(step(inputs=["model", "data"])(score.fn))
)


@pipeline
def diamond(size: int = 4, rates: list[float] = [0.1, 0.2, 0.3]) -> None:  # noqa: B006  # never changed
    """Ways that part and meet again, a model for each rate between them."""
    train, test = split(load_data(size))
    score(best(fit.partial(rows=train).map(lr=rates)), test)


@step
def numbers(count: int) -> list[int]:
    """The first whole numbers."""
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
    """As many items as a step says, and back into one."""
    done = both.partial(factor=10).map(x=numbers(count))
    half.map(x=done.square)
    return total(done.square, done.negative)


@step
def add(a: int, b: int) -> int:
    return a + b


@step
def together(values: list[int]) -> int:
    """Their sum."""
    return sum(values)


@step
def pair(count: int) -> tuple[int, int]:
    return count, count + 1


@pipeline
def maps(items: list[int] = [1, 2, 3]) -> None:  # noqa: B006  # never changed
    """A fan-out over all that can be fanned out over."""
    written = add.partial(b=10).map(a=[4, 5, 6])
    given = add.partial(b=20).map(a=items)
    made = add.partial(b=30).map(a=numbers(3))
    of_tuple = add.partial(b=40).map(a=pair(7))
    mapped = add.partial(b=50).map(a=made)
    zipped = add.map(a=given, b=mapped)
    both_lists = add.map(a=written, b=[1, 2, 3])
    gathered = add.partial(b=60).map(a=[together(zipped), together(both_lists), together(of_tuple)])
    together(gathered)


@pipeline
def nothing(items: list[int] = []) -> None:  # noqa: B006  # never changed
    """Fan-outs over nothing: written, given and made."""
    made = add.partial(b=1).map(a=numbers(0))
    together(add.map(a=made, b=items))
    add.partial(b=1).map(a=[])


@pipeline
def gather() -> None:
    """Outputs of several steps as one list, and one output for several steps."""
    low, high = pair.with_options(outputs=["low", "high"])(1)
    together([low, high, low])
    together([high])
    add(low, low)


@step
def glance(data: Ref[Dataset]) -> dict[str, Any]:
    with data.open() as file:
        return {"length": data.metadata["length"], "bytes": len(file.read()), "digest": data.digest}


@step
def each(x: Ref[int], other: Ref[Model] | None = None) -> int:
    return x.load() if other is None else -1


@step
def every(values: list[Ref[int]]) -> int:
    return sum(value.load() for value in values)


@step(outputs=["same", "first"])
def onward(data: Ref[Dataset]) -> tuple[Ref[Dataset], Any]:
    return data, data.load().data[0]


@pipeline
def lazy(size: int = 3) -> None:
    """Inputs that are handles: one, of items, in lists, skipped, given, handed on."""
    data = Ref.of(load_data(size))
    glance(data)
    squares = both.partial(factor=2).map(x=[1, 2, 3]).square
    every(each.map(squares))
    sums = [Ref.of(together(numbers(size))), Ref.of(together(numbers(2)))]
    every([Ref.of(each(sums[0])), sums[1]])
    each(sums[1], Ref.of(best.when(size, equals=0)([])))
    same, _ = onward(data)
    glance(same)
    each(Ref.of(size))


class Parts(TypedDict):
    """Outputs by name."""

    head: int
    tail: list[int]


@step(outputs=["tail", "head"])
def by_name(count: int) -> Parts:
    return {"head": count, "tail": list(range(count))}


@step(outputs=["first", "second"])
def by_place(count: int) -> list[Any]:
    return [count, None]


@step
def absent(value: int) -> None:
    return None


@step
async def given_or(value: int | None, otherwise: int = 7) -> int:
    return otherwise if value is None else value


@pipeline
def outputs() -> Any:
    """Several outputs, by name and by place, and outputs that are None."""
    tail, _ = by_name(2)
    given_or.map(value=tail)
    first, second = by_place(3)
    return [given_or(second), given_or(absent(first)), absent.map(value=tail)]


# --- parameters -------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    """What a parameter can be."""

    RED = "red"
    BLUE = "blue"


@step
def shown(value: Any) -> str:
    return repr(value)


@step
def settings(whole: int, real: float, text: str, switch: bool, colour: Colour, mode: str) -> str:
    return repr((whole, real, text, switch, colour, mode))


@pipeline
def parameters(
    whole: int,
    real: float = 0.5,
    text: str = "a/b: ü\n",
    switch: bool = False,
    items: list[int] = [1, 2],  # noqa: B006  # never changed
    point: tuple[int, str] = (1, "x"),
    colour: Colour = Colour.RED,
    mode: Literal["fast", "slow"] = "fast",
    when: datetime = datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    perhaps: int | None = None,
) -> None:
    """A parameter of every simple type."""
    settings(whole, real, text, switch, colour, mode)
    for value in (whole, real, items, point, when, perhaps):
        shown(value)
    shown.map(value=items)


_GIVEN = {
    "whole": 2**40,
    "real": 3,  # stays a whole number, as any int may stand for a float
    "switch": True,
    "items": [3, -4],
    "point": (2, "ü"),
    "colour": Colour.BLUE,
    "mode": "slow",
    "when": datetime(2026, 2, 28, 1, 2, 3, 4, tzinfo=UTC),
    "perhaps": 5,
}

# --- failures ---------------------------------------------------------------------------------------------------------


@step
def boom(values: list[int]) -> int:
    """Fail, always."""
    raise ValueError(f"{len(values)} values are too many")


@step
def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


@step
def measured(value: int) -> Metrics:
    return Metrics(value=value)


@pipeline
def failing(count: int = 3) -> None:
    """A step fails: what needs it is skipped, and the others go on."""
    found = numbers(count)
    lost = boom(found)
    add(lost, 1)
    add.partial(b=lost).map(a=found)
    add.partial(b=1).map(a=[together(found), lost])
    measured(together(found))


@pipeline
def item_failing(count: int = 4) -> None:
    """Some items of a fan-out fail: the others go on, and what needs the whole is skipped."""
    left = odd_only.map(x=numbers(count))
    add.partial(b=1).map(a=left)
    measured(together(left))
    measured(together(numbers(count)))


@pipeline
def mismatched(count: int = 3) -> None:
    """A step fails before a fan-out that cannot be: the failure that is reported is the first of the plan."""
    boom(numbers(count))
    together(add.map(a=numbers(2), b=numbers(3)))
    measured(together(numbers(1)))


@pipeline
def not_a_list(count: int = 3) -> None:
    """A fan-out over what is no list."""
    add.partial(b=1).map(a=together(numbers(count)))
    measured(together(numbers(1)))


@step(outputs=["good", "bad"])
def unstorable(count: int) -> tuple[int, Any]:
    return count, Path("no such file")


@step(outputs=["one", "two"])
def too_many() -> Any:
    return 1, 2, 3


@pipeline
def refused() -> None:
    """Outputs that cannot be stored leave nothing, of the other outputs neither."""
    unstorable(2)
    too_many()
    numbers(2)


def _tries(name: str) -> int:
    """How often this was called in this run: what an attempt leaves outside of the store for the next."""
    file = Path(current_run().run.root) / "tries" / name
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as log:
        log.write("x")
    return file.stat().st_size


@step(retries=2, retry_delay=0.01)
def flaky(x: int) -> Metrics:
    current_run().record_artifact({"x": x}, name="note")
    if _tries(f"flaky-{x}") < 3:
        raise OSError("not yet")
    return Metrics(x=x).at_step(x)


@step(retries=1, retry_delay=0.01)
def hopeless() -> int:
    raise OSError(f"try {_tries('hopeless')}")


@pipeline
def retried() -> None:
    """Steps that fail twice and then succeed."""
    flaky(0)
    flaky.map(x=[1, 2])


@pipeline
def retried_in_vain() -> None:
    """A step that fails at every attempt."""
    together([hopeless()])


@step(timeout=0.3)
def slow() -> int:
    for _ in range(2000):
        time.sleep(0.01)
    return 1


@pipeline
def timed_out() -> None:
    """A step that needs longer than it may."""
    add(slow(), 1)
    numbers(2)


# --- names ------------------------------------------------------------------------------------------------------------

_ODD = ["a/b", "a b", "a:b", "..", "ünï", "x" * 200, "a.b", "a-b"]

names = Pipeline("p/../q: ü", context=context(count=2))
for _name in _ODD:
    names.add_step(step(name=f"step {_name}", outputs=[_name])(numbers.fn))
names.add_step(step(inputs=["a/b"], outputs=["a/b/c"])(half.fn), name="each/ü", map_over="x")


CASES = {
    "chain": Case(chain),
    "chain with a parameter": Case(chain, {"lr": 0.5}),
    "diamond": Case(diamond, {"rates": [0.1, 0.7]}),
    "fan": Case(fan, {"count": 5}),
    "fan over nothing": Case(fan, {"count": 0}),
    "maps": Case(maps, {"items": [7, 8, 9]}),
    "maps over nothing": Case(nothing),
    "gather": Case(gather),
    "lazy inputs": Case(lazy, {"size": 4}),
    "outputs": Case(outputs),
    "default parameters": Case(parameters, {"whole": 1}),
    "given parameters": Case(parameters, _GIVEN),
    "a step fails": Case(failing, fails="ValueError: 3 values are too many"),
    "an item fails": Case(item_failing, fails="ValueError: 0 is even"),
    "a fan-out does not fit": Case(mismatched, fails="ValueError: 3 values are too many"),
    "a fan-out over no list": Case(not_a_list, fails="is not a list or tuple"),
    "an output is refused": Case(refused, fails="cannot be stored"),
    "retries": Case(retried),
    "retries in vain": Case(retried_in_vain, fails="OSError: try 2"),
    "timeout": Case(timed_out, fails="ran longer than its timeout"),
    "names": Case(names),
}
"""The cases by name."""
