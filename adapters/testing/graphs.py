"""Random pipelines: described as JSON, so that another process can build the same one again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from ...core.errors import PipelineError, StepSkipped
from ...core.pipeline import Pipeline
from ...core.step import Step, step

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["Description", "build", "descriptions", "wiring"]

Description = Mapping[str, Any]
"""``{"base": 2, "steps": [{"op": "add", "inputs": {"a": "s0.low", "b": 3}, "map": ["a"]}, ...]}``.

``base`` is the value of the pipeline's parameter. The step at place *i* is called ``s<i>``. An input is a number or a
list of numbers that is written into the pipeline, ``"base"``, an output such as ``"s0.low"``, or a list of outputs. A
step with ``"when"``, an output or ``"base"``, runs if that is true. Those with the same ``"group"`` are one task.
"""


@step(outputs=["sum"])
def add(a: int, b: int) -> int:
    return a + b


@step(outputs=["items"])
def count(n: int) -> list[int]:
    return list(range(abs(n) % 5))


@step(outputs=["rest", "total"])
def reduce(items: list[int]) -> tuple[list[int], int]:
    return items[1:], sum(items)


@step(outputs=["low", "high"])
def split(x: int) -> dict[str, int]:
    return {"low": x // 2, "high": x - x // 2}


@step(outputs=["maybe"])
async def even(x: int) -> int | None:
    return None if x % 2 else x


@step(outputs=["size"])
def size(anything: Any) -> int:
    return len(anything) if isinstance(anything, list) else 0 if anything is None else 1


@step(outputs=["checked"])
def check(x: int) -> int:
    if x % 7 == 3:
        raise ValueError(f"{x} is not wanted")
    return x


@step(outputs=["kept"])
def positive(x: int) -> int:
    if x <= 0:
        raise StepSkipped(f"{x} is not positive")
    return x


_ALL = (add, count, reduce, split, even, size, check, positive)
_STEPS: dict[str, Step[..., Any]] = {made.name: made for made in _ALL}

# What each parameter takes and each output is: a number, a list of numbers, or anything at all.
_TAKES = {
    "add": {"a": "number", "b": "number"},
    "count": {"n": "number"},
    "reduce": {"items": "list"},
    "split": {"x": "number"},
    "even": {"x": "number"},
    "size": {"anything": "any"},
    "check": {"x": "number"},
    "positive": {"x": "number"},
}
_GIVES = {
    "add": {"sum": "number"},
    "count": {"items": "list"},
    "reduce": {"rest": "list", "total": "number"},
    "split": {"low": "number", "high": "number"},
    "even": {"maybe": "any"},
    "size": {"size": "number"},
    "check": {"checked": "number"},
    "positive": {"kept": "number"},
}


def build(description: Description) -> Pipeline:
    """The pipeline that a description describes; equal descriptions give pipelines of one version."""

    def wire(base: Any) -> None:
        made: dict[str, Any] = {}

        def source(text: str) -> Any:
            return base if text == "base" else made[text]

        for place, entry in enumerate(description["steps"]):
            given = {name: _resolved(value, source) for name, value in entry["inputs"].items()}
            mapped = {name: given.pop(name) for name in entry["map"]}
            used = _STEPS[entry["op"]].with_options(name=f"s{place}", group=entry.get("group"))
            if "when" in entry:
                used = used.when(source(entry["when"]))
            found = used.partial(**given).map(**mapped) if mapped else used(**given)
            names = [output.name for output in used.outputs]
            for name, one in zip(names, found if len(names) > 1 else [found], strict=True):
                made[f"s{place}.{name}"] = one

    return Pipeline("random", context={"base": description["base"]}, function=wire)


def _resolved(value: Any, source: Any) -> Any:
    if isinstance(value, list):
        return [_resolved(item, source) for item in value]
    return source(value) if isinstance(value, str) else value


def wiring(description: Description) -> str:
    """The pipeline as people would write it, a line for each step."""
    lines = [f"base = {description['base']}"]
    for place, entry in enumerate(description["steps"]):
        outputs = ", ".join(f"s{place}.{name}" for name in _GIVES[entry["op"]])
        fixed, mapped = (
            ", ".join(
                f"{name}={_shown(value)}" for name, value in entry["inputs"].items() if (name in entry["map"]) is of
            )
            for of in (False, True)
        )
        op = f"{entry['op']}.when({entry['when']})" if "when" in entry else entry["op"]
        partial = f".partial({fixed})" if fixed else ""
        call = f"{op}{partial}.map({mapped})" if mapped else f"{op}({fixed})"
        group = f"  # in {entry['group']}" if "group" in entry else ""
        lines.append(f"{outputs} = {call}{group}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


# --- the strategy -----------------------------------------------------------------------------------------------------


def descriptions(*, min_steps: int = 3, max_steps: int = 12) -> SearchStrategy[Description]:
    """Hypothesis' strategy of random pipelines; of some, steps fail or fan-outs do not fit."""
    from hypothesis import strategies as st

    @st.composite
    def drawn(draw: DrawFn) -> Description:
        kinds: dict[str, str] = {}  # by output: number, list, any, or "each ..." for the items of a mapped step
        steps = [_draw_step(draw, place, kinds) for place in range(draw(st.integers(min_steps, max_steps)))]
        drawn: Description = {"base": draw(st.integers(-3, 9)), "steps": steps}
        for group in ("one", "two"):
            drawn = _grouped(drawn, group, draw(st.sets(st.integers(0, len(steps) - 1), max_size=5)))
        return drawn

    return drawn()


def _grouped(description: Description, group: str, places: Set[int]) -> Description:
    """The description with the steps at these places in a group, where they can be one task."""
    steps = [
        {**entry, "group": group} if place in places and "group" not in entry else entry
        for place, entry in enumerate(description["steps"])
    ]
    try:
        build({**description, "steps": steps}).plan()
    except PipelineError:
        return description
    return {**description, "steps": steps}


def _draw_step(draw: DrawFn, place: int, kinds: dict[str, str]) -> dict[str, Any]:
    from hypothesis import strategies as st

    op = draw(st.sampled_from(sorted(_STEPS)))
    mapped = [name for name in _TAKES[op] if draw(st.integers(0, 2)) == 0]
    inputs = {
        name: draw(_items(kind, kinds) if name in mapped else _value(kind, kinds)) for name, kind in _TAKES[op].items()
    }
    drawn = {"op": op, "inputs": inputs, "map": mapped}
    if draw(st.integers(0, 5)) == 0:
        drawn["when"] = draw(st.sampled_from(["base", *_of(kinds, "number", "any", "list")]))
    for name, kind in _GIVES[op].items():
        kinds[f"s{place}.{name}"] = f"each {kind}" if mapped else kind
    return drawn


def _of(kinds: Mapping[str, str], *wanted: str) -> Sequence[str]:
    return [name for name, kind in kinds.items() if kind in wanted]


def _value(kind: str, kinds: Mapping[str, str]) -> SearchStrategy[Any]:
    """What a parameter takes that is not mapped over: something upstream where there is anything."""
    from hypothesis import strategies as st

    numbers, each = _of(kinds, "number"), _of(kinds, "each number")
    if kind == "number":
        return st.sampled_from([*numbers, "base"]) | (st.nothing() if numbers else st.integers(-9, 9))
    known = [*_of(kinds, "list"), *each] if kind == "list" else list(kinds)
    gathered = st.lists(st.sampled_from(numbers), min_size=1, max_size=4) if numbers else st.nothing()
    written = st.lists(st.integers(-9, 9), max_size=3)
    return (st.sampled_from(known) if known else written) | gathered


def _items(kind: str, kinds: Mapping[str, str]) -> SearchStrategy[Any]:
    """What a parameter takes whose items are mapped over."""
    from hypothesis import strategies as st

    if kind == "list":
        lists, each = _of(kinds, "list"), _of(kinds, "each list")
        gathered = st.lists(st.sampled_from(lists), min_size=1, max_size=3) if lists else st.nothing()
        written = st.lists(st.lists(st.integers(-9, 9), max_size=2), max_size=3)
        return (st.sampled_from(each) if each else st.nothing() if lists else written) | gathered
    known = [*_of(kinds, "list", "each number"), *(_of(kinds, "each any") if kind == "any" else [])]
    numbers = _of(kinds, "number")
    gathered = st.lists(st.sampled_from(numbers), min_size=1, max_size=4) if numbers else st.nothing()
    return (st.sampled_from(known) if known else st.lists(st.integers(-9, 9), max_size=4)) | gathered
