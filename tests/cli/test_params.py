"""``--param``: text to values."""

from __future__ import annotations

import enum
import json
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import Pipeline, PipelineError
from tailrace.cli.params import parse_params


class Grade(enum.Enum):
    FINE = "fine"
    COARSE = "coarse"


def parse(annotation: Any, text: str) -> Any:
    """The value of one parameter of this annotation (None: it has none)."""

    def work(x):  # type: ignore[no-untyped-def]  # annotated below
        return 1

    if annotation is not None:
        work.__annotations__["x"] = annotation
    return parse_params(Pipeline("p", context={"x": None}).add_step(work), [f"x={text}"])["x"]


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "5", 5),
        (float, "1e-3", 0.001),
        (float, "3", 3.0),
        (bool, "yes", True),
        (str, "007", "007"),
        (str, "null", "null"),
        (str, "a # b", "a # b"),
        (str, "[1", "[1"),
        (str | None, "null", None),
        (int | None, "~", None),
        (list[int], "[1, 2]", [1, 2]),
        (tuple[float, ...], "[1, 2e-1]", (1.0, 0.2)),
        (dict[str, float], "{lr: 1e-2}", {"lr": 0.01}),
        (dict[str, list[int]], '{"a": [1]}', {"a": [1]}),
        (date, "2026-11-21", date(2026, 11, 21)),
        (Path, "a/b", Path("a/b")),
        (Grade, "fine", Grade.FINE),
        (Literal["1", "2"], "1", "1"),
        (None, "1e-3", 0.001),
        (None, "12", 12),
        (None, "true", True),
        (None, "", None),
        (None, "12:30", "12:30"),
        (None, "010", "010"),
        (None, "no", "no"),
        (None, "a: b", "a: b"),
        (None, "k=v", "k=v"),
        (None, "[1, x]", [1, "x"]),
        (None, "'12'", "12"),
        (None, "-.inf", float("-inf")),
    ],
)
def test_the_text_becomes_what_the_annotation_asks_for(annotation: Any, text: str, value: Any) -> None:
    found = parse(annotation, text)
    assert (found, type(found)) == (value, type(value))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, min_size=1)))
def test_json_lists_mean_what_they_mean_in_json(value: Any) -> None:
    assert parse(None, json.dumps([value])) == [value]


@given(st.floats(allow_nan=False))
def test_a_float_as_python_writes_it_is_that_float(value: float) -> None:
    assert parse(float, repr(value)) == value


@given(st.text())
def test_text_is_taken_as_it_is(text: str) -> None:
    assert parse(str, text) == text


@pytest.mark.parametrize(
    ("annotation", "text", "reason"),
    [
        (int, "x", "valid integer"),
        (list[int], "[1, x]", "[1] input should be a valid integer"),
        (Grade, "rough", "'fine' or 'coarse'"),
        (None, "[1", "it is no YAML"),
        (dict[str, int], "{a: 1", "it is no YAML"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused_with_the_reason(annotation: Any, text: str, reason: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(annotation, text)
    (problem,) = caught.value.problems
    assert f"{text!r} is no value for 'x'" in problem.message
    assert reason in problem.message


def test_a_type_of_a_library_that_pydantic_does_not_know_gets_the_value_as_it_is() -> None:
    class Own:
        pass

    assert parse(Own, "5") == 5
