"""A pipeline's parameters are the DAG's, with a JSON schema that Airflow holds them to, and come back as they were."""

from __future__ import annotations

import enum
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict

import annotated_types
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import Dataset, Model, Pipeline, PipelineError, pipeline, step
from tailrace.core.plan import Plan

from .in_process import as_dag, run_pipeline

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Split:
    train: float
    folds: int = 5


class Settings(pydantic.BaseModel):
    depth: int = pydantic.Field(3, ge=1)
    names: tuple[str, ...] = ()


class Point(NamedTuple):
    x: int
    y: int


class Row(TypedDict):
    name: str
    size: int


TYPED = sys.version_info >= (3, 12)  # pydantic does not know the standard library's TypedDict before
Whole = Annotated[int, pydantic.Field(ge=1, le=10, description="From one to ten.")]
Share = Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)]

NOTHING = inspect.Parameter.empty
finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]))
moments = st.datetimes(timezones=st.just(UTC))

# The annotation; what values of it are; what is refused before a run.
ANNOTATIONS: dict[str, tuple[Any, st.SearchStrategy[Any], list[Any]]] = {
    "int": (int, st.integers(), ["a", 1.5, None]),
    "float": (float, finite, ["a", None]),
    "bool": (bool, st.booleans(), [7, "perhaps"]),
    "str": (str, text, [1, None, ["a"]]),
    "int or None": (int | None, st.none() | st.integers(), ["a", 1.5]),
    "Optional": (Optional[str], st.none() | text, [1]),  # noqa: UP045  # both are written
    "union": (int | str, st.integers() | text, [1.5, None]),
    "Literal": (Literal["fast", "slow"], st.sampled_from(["fast", "slow"]), ["medium", 1, None]),
    "one Literal or None": (Literal["a"] | None, st.sampled_from(["a", None]), ["b"]),
    "Literal or None": (Literal[1, 2] | None, st.sampled_from([1, 2, None]), [3]),
    "Enum": (Colour, st.sampled_from(Colour), ["green", None]),
    "Enum or None": (Colour | None, st.sampled_from([*Colour, None]), ["green", 1]),
    "IntEnum": (Level, st.sampled_from(Level), [3, "LOW"]),
    "datetime": (datetime, moments, ["yesterday", 1.5]),
    "date": (date, st.dates(), ["yesterday"]),
    "list": (list[float], st.lists(finite), ["1.5", [1.0, "a"]]),
    "list without items' type": (list, st.lists(st.integers() | text), ["a", 1]),
    "list of dates or None": (list[date] | None, st.none() | st.lists(st.dates()), [["yesterday"]]),
    "tuple": (tuple[int, str], st.tuples(st.integers(), text), [[1], [1, "a", 2], ["a", 1]]),
    "tuple of any length": (tuple[int, ...], st.lists(st.integers()).map(tuple), [["a"]]),
    "NamedTuple": (Point, st.builds(Point, st.integers(), st.integers()), [[1]]),
    "set": (set[str], st.sets(text), [[1]]),
    "dict": (dict[str, int], st.dictionaries(text, st.integers()), [{"a": "b"}, [1]]),
    "dict with whole numbers as keys": (dict[int, str], st.dictionaries(st.integers(), text), [[1]]),
    "TypedDict": (Row, st.fixed_dictionaries({"name": text, "size": st.integers()}), [{"name": "a"}] * TYPED),
    "bounds": (Whole, st.integers(1, 10), [0, 11, "a"]),
    "bounds or None": (Whole | None, st.none() | st.integers(1, 10), [0, 11]),
    "open bounds": (Share, st.floats(0, 1, exclude_min=True, exclude_max=True), [0, 1, 1.5]),
    "Path": (Path, st.sampled_from([Path("a/b"), Path("/data"), Path()]), [1]),
    "dataclass": (Split, st.builds(Split, finite, st.integers()), [{"folds": 3}, 1]),
    "pydantic": (Settings, st.builds(Settings, depth=st.integers(1)), [{"depth": 0}, "deep"]),
    "nothing": (NOTHING, st.none() | st.integers() | text | st.lists(st.integers()), []),
    "Any": (Any, st.none() | st.integers() | st.dictionaries(text, text), []),
    "object": (object, st.none() | text, []),
}
ANNOTATION = pytest.mark.parametrize("name", ANNOTATIONS)


def taking(annotation: Any, default: Any = NOTHING) -> Pipeline:
    @step
    def used(value):  # type: ignore[no-untyped-def]
        return repr(value)

    used.fn.__annotations__["value"] = annotation
    if annotation is NOTHING:
        del used.fn.__annotations__["value"]

    def taking(value):  # type: ignore[no-untyped-def]
        used(value)

    taking.__annotations__.update(used.fn.__annotations__)
    if default is not NOTHING:
        taking.__defaults__ = (default,)
    return pipeline(taking)


def triggered(dag: Any, conf: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a run as Airflow's API makes and checks them before there is a run."""
    from airflow.serialization.serialized_objects import DagSerialization

    data = json.loads(json.dumps(DagSerialization.serialize_dag(dag)))
    params = DagSerialization.deserialize_dag(data).params.deep_merge(json.loads(json.dumps(conf)))
    found = params.validate()
    assert isinstance(found, dict)
    return found


def back(plan: Plan, value: Any) -> Any:
    """The value as a task gets it: as JSON, through Airflow's params, as the annotation's type."""
    from tailrace.adapters.airflow.params import as_json, values

    conf = as_json(plan, {"value": value})
    return values(plan, json.loads(json.dumps(conf)))["value"]


@ANNOTATION
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_value_comes_back_from_json_as_what_it_was(name: str, data: st.DataObject) -> None:
    annotation, strategy, _ = ANNOTATIONS[name]
    value = data.draw(strategy)
    plan = taking(annotation).plan()
    found = back(plan, value)
    assert found == value
    assert type(found) is type(value)


@ANNOTATION
def test_airflow_takes_what_the_annotation_allows_and_refuses_the_rest_before_the_run(name: str) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    from tailrace.adapters.airflow.params import as_json

    annotation, _, refused = ANNOTATIONS[name]
    made = taking(annotation)
    dag, plan = as_dag(made), made.plan()
    for value in EXAMPLES[name]:
        conf = as_json(plan, {"value": value})
        assert triggered(dag, conf)["value"] == json.loads(json.dumps(conf))["value"]
    for value in refused:
        with pytest.raises(ParamValidationError):
            triggered(dag, {"value": value})


EXAMPLES: dict[str, list[Any]] = {
    "int": [0, -1, 2**70],
    "float": [0.5, 3, -1e300],
    "bool": [True, False],
    "str": ["", "a/b ü\n"],
    "int or None": [1, None],
    "Optional": ["a", None],
    "union": [1, "a"],
    "Literal": ["fast"],
    "one Literal or None": ["a", None],
    "Literal or None": [2, None],
    "Enum": [Colour.BLUE],
    "Enum or None": [Colour.RED, None],
    "IntEnum": [Level.HIGH],
    "datetime": [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)],
    "date": [date(2026, 1, 2)],
    "list": [[], [1.5, 2]],
    "list without items' type": [[1, "a"]],
    "list of dates or None": [None, [date(2026, 1, 2)]],
    "tuple": [(1, "a")],
    "tuple of any length": [(), (1, 2)],
    "NamedTuple": [Point(1, 2)],
    "set": [{"a", "b"}],
    "dict": [{"a": 1}],
    "dict with whole numbers as keys": [{1: "a"}],
    "TypedDict": [{"name": "a", "size": 1}],
    "bounds": [1, 10],
    "bounds or None": [None, 5],
    "open bounds": [0.5],
    "Path": [Path("a/b")],
    "dataclass": [Split(0.5)],
    "pydantic": [Settings(depth=2, names=("a",))],
    "nothing": [None, 1, "a", [1]],
    "Any": [None, {"a": 1}],
    "object": [None, "a"],
}


@ANNOTATION
def test_a_default_is_the_params_as_json_and_its_own_type_again_in_a_task(name: str) -> None:
    from tailrace.adapters.airflow.params import values

    annotation, _, _ = ANNOTATIONS[name]
    for default in EXAMPLES[name]:
        made = taking(annotation, default)
        found = triggered(as_dag(made), {})
        assert values(made.plan(), {"value": found["value"]})["value"] == default


def schema(annotation: Any) -> Any:
    return as_dag(taking(annotation)).params.get_param("value").schema


def test_the_schemas_are_those_that_airflows_form_has_fields_for() -> None:
    assert schema(int) == {"type": "integer"}
    assert schema(int | None) == {"type": ["null", "integer"]}
    assert schema(Literal["fast", "slow"]) == {"type": "string", "enum": ["fast", "slow"]}
    assert schema(datetime) == {"type": "string", "format": "date-time"}
    assert schema(list[float]) == {"type": "array", "items": {"type": "number"}}
    assert schema(Whole) == {"type": "integer", "minimum": 1, "maximum": 10}
    assert schema(Whole | None) == {"type": ["null", "integer"], "minimum": 1, "maximum": 10}
    assert schema(Share) == {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    assert schema(Colour)["enum"] == ["red", "blue"]
    assert schema(Colour | None)["enum"] == ["red", "blue", None]
    assert schema(NOTHING) == {}
    assert as_dag(taking(Whole)).params.get_param("value").description == "From one to ten."


def test_what_is_refused_is_named() -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError, match="param value: 11 is greater than the maximum of 10"):
        triggered(as_dag(taking(Whole)), {"value": 11})
    with pytest.raises(ParamValidationError, match="value"):
        triggered(as_dag(taking(int)), {})


def test_an_artifact_may_be_given_by_its_uri_or_its_reference() -> None:
    dag = as_dag(taking(Model))
    for value in ("file:///models/1", {"uri": "file:///models/1"}):
        assert triggered(dag, {"value": value})["value"] == value
    assert triggered(as_dag(taking(Dataset | None, None)), {})["value"] is None


def test_a_default_that_is_no_json_is_named() -> None:
    with pytest.raises(
        PipelineError, match=r"<object object at .*> is no JSON.* @ pipeline 'taking', parameter 'value'"
    ):
        as_dag(taking(Any, object()))


def test_a_value_that_is_no_json_is_named_before_the_run() -> None:
    from tailrace.adapters.airflow.params import as_json

    with pytest.raises(PipelineError, match=r"is no JSON.* @ pipeline 'taking', parameter 'value'"):
        as_json(taking(Any).plan(), {"value": object()})


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_json_does_not_have_is_no_default(value: float) -> None:
    with pytest.raises(PipelineError, match=rf"{value} is no JSON.* @ pipeline 'taking', parameter 'value'"):
        as_dag(taking(float, value))


@pytest.mark.parametrize("schedule", ["@daily", "0 5 * * *"])
def test_a_parameter_that_nobody_gives_is_an_error_on_a_schedule(schedule: str) -> None:
    what = r"on a schedule, and nobody gives the parameters value; give them defaults @ pipeline 'taking'"
    with pytest.raises(PipelineError, match=what):
        as_dag(taking(int), schedule=schedule)
    assert as_dag(taking(int), schedule=None).params.get_param("value").schema == {"type": "integer"}


def test_unknown_names_are_refused_by_the_first_task_with_the_nearest_known_one() -> None:
    ran = run_pipeline(taking(int, 1), {"valeu": 2, "run_id": "r"})
    assert ran.state == "failed"
    assert ran.states["used"] == "failed"
    assert ran.instances()["used"].try_number == 1


def test_a_step_gets_the_values_of_its_types(capfd: pytest.CaptureFixture[str]) -> None:
    @step
    def seen(
        colour: Colour, when: datetime, where: Path, pair: tuple[int, str], split: Split, perhaps: int | None
    ) -> str:
        return repr((colour, when.isoformat(), where, pair, split, perhaps))

    @pipeline
    def typed(
        colour: Colour = Colour.RED,
        when: datetime = datetime(2026, 1, 1, tzinfo=UTC),
        where: Path = Path("here"),
        pair: tuple[int, str] = (1, "a"),
        split: Split = Split(0.5),  # noqa: B008  # never changed
        perhaps: int | None = None,
    ) -> None:
        seen(colour, when, where, pair, split, perhaps)

    ran = run_pipeline(typed, {"colour": "blue", "pair": [2, "b"]})
    expected = (Colour.BLUE, "2026-01-01T00:00:00+00:00", Path("here"), (2, "b"), Split(0.5), None)
    assert ran.value("seen") == repr(expected)
    assert ran.journal.record().run.params["pair"] == [2, "b"]  # type: ignore[union-attr]
