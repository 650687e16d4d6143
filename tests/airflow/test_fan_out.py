"""Fan-out on Airflow: one task an item, or one for several, and the results in order whatever was cut how."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace import Pipeline, pipeline, step

from .in_process import Ran, as_dag, run_pipeline, told_by_inline

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def double(x: int) -> int:
    return 2 * x


@step
def plus(x: int, y: int) -> int:
    return x + y


@step
def joined(values: list[int]) -> str:
    return " ".join(map(str, values))


@step(outputs=["least", "most"])
def ends(values: list[int]) -> tuple[int, int]:
    return values[0], values[-1]


def mapped_tasks(ran: Ran, step: str) -> list[str]:
    return sorted(name for name in ran.states if name.startswith(f"{step}_") and not name.endswith("__items"))


def test_items_written_in_the_pipeline_need_no_task_that_counts_them() -> None:
    @pipeline
    def written() -> Any:
        return joined(double.map(x=[3, 1, 2]))

    ran = run_pipeline(written, {"run_id": "r"})
    assert ran.states == dict.fromkeys(["double_0", "double_1", "double_2", "joined", "close_run"], "success")
    assert ran.value("joined") == "6 2 4"
    assert ran.told == told_by_inline(written, run_id="r")


def test_a_list_among_the_parameters_is_fanned_out_over_as_it_is_given() -> None:
    @pipeline
    def given(items: list[int] = [1, 2]) -> Any:  # noqa: B006  # never changed
        return joined(double.map(x=items))

    ran = run_pipeline(given, {"items": [5, 4, 3], "run_id": "r"})
    assert mapped_tasks(ran, "double") == ["double_0", "double_1", "double_2"]
    assert ran.value("joined") == "10 8 6"
    assert ran.told == told_by_inline(given, {"items": [5, 4, 3]}, run_id="r")


def test_maps_over_outputs_over_maps_and_over_several_lists_give_what_inline_gives() -> None:
    @pipeline
    def woven(count: int = 3) -> None:
        made = double.map(x=numbers(count))
        again = double.map(x=made)
        pairs = plus.map(x=made, y=again)
        _, most = ends(pairs)
        least, _ = ends.with_options(name="others")(again)
        shifted = plus.partial(y=10).map(x=[most, least])
        joined(pairs)
        joined.with_options(name="last")(shifted)

    ran = run_pipeline(woven, {"run_id": "r"})
    assert ran.state == "success"
    assert ran.value("joined") == "0 6 12"
    assert ran.value("last") == "22 10"
    assert ran.told == told_by_inline(woven, run_id="r")


def test_mapping_by_names_is_the_same_as_by_calls() -> None:
    by_names = (
        Pipeline("by names", context={"count": 3})
        .add_step(step(outputs=["x"])(numbers.fn), name="numbers")
        .add_step(step(outputs=["values"])(double.fn), name="double", map_over="x")
        .add_step(joined)
    )
    assert run_pipeline(by_names).value("joined") == "0 2 4"


def test_a_fan_out_over_nothing_is_a_task_that_does_nothing_and_an_empty_list() -> None:
    @pipeline
    def none(items: list[int] = []) -> None:  # noqa: B006  # never changed
        again = double.map(x=double.with_options(name="first").map(x=items))
        joined(again)
        joined.with_options(name="written")(double.with_options(name="nothing").map(x=[]))
        joined.with_options(name="made")(double.with_options(name="of_output").map(x=numbers(0)))

    ran = run_pipeline(none, {"run_id": "r"})
    assert ran.state == "success", ran.states
    assert [ran.value(name) for name in ("joined", "written", "made")] == ["", "", ""]
    assert ran.told == told_by_inline(none, run_id="r")


@pipeline
def many(count: int = 10) -> None:
    """More items than Airflow is told to allow below."""
    items = numbers(count)
    first = double.map(x=items)
    second = plus.map(x=first, y=items)
    joined(second)
    joined.with_options(name="early")(first)


@pytest.fixture
def three_tasks_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")


@pytest.mark.usefixtures("three_tasks_at_most")
def test_more_items_than_airflow_allows_tasks_share_them_in_order() -> None:
    ran = run_pipeline(many, {"run_id": "r"})
    assert ran.state == "success"
    assert mapped_tasks(ran, "double") == ["double_0", "double_1", "double_2"]
    assert [ran.message("double", index)["span"] for index in range(3)] == [[0, 4, 10], [4, 8, 10], [8, 10, 10]]
    assert ran.value("early") == " ".join(str(2 * x) for x in range(10))
    assert ran.value("joined") == " ".join(str(3 * x) for x in range(10))
    assert ran.told == told_by_inline(many, run_id="r")


@pytest.mark.usefixtures("three_tasks_at_most")
def test_items_that_share_a_task_all_run_although_one_fails() -> None:
    @step
    def odd(x: int) -> int:
        if x % 2 == 0:
            raise ValueError(f"{x} is even")
        return x

    @pipeline
    def picky(count: int = 7) -> None:
        joined(odd.map(x=numbers(count)))

    ran = run_pipeline(picky, {"run_id": "r"})
    assert ran.state == "failed"
    assert [ran.states[f"odd_{index}"] for index in range(3)] == ["failed"] * 3
    assert ran.told == told_by_inline(picky, run_id="r")


@pytest.mark.usefixtures("three_tasks_at_most")
@pytest.mark.parametrize("count", [3, 4])
def test_the_limit_itself_needs_no_sharing(count: int) -> None:
    @pipeline
    def few(count: int = 3) -> None:
        joined(double.map(x=numbers(count)))

    ran = run_pipeline(few, {"count": count})
    assert len(mapped_tasks(ran, "double")) == {3: 3, 4: 2}[count]
    assert ran.value("joined") == " ".join(str(2 * x) for x in range(count))


@pytest.mark.usefixtures("three_tasks_at_most")
def test_a_written_list_of_more_items_than_airflow_allows_runs_too() -> None:
    @pipeline
    def long() -> None:
        joined(double.map(x=[0, 1, 2, 3, 4]))

    assert run_pipeline(long).value("joined") == "0 2 4 6 8"


def test_lists_of_different_lengths_fail_the_run_with_both_lengths_in_its_record() -> None:
    @pipeline
    def uneven() -> None:
        joined(plus.map(x=numbers(2), y=numbers.with_options(name="more")(3)))
        double(4)

    ran = run_pipeline(uneven, {"run_id": "r"})
    assert ran.state == "failed"
    assert ran.states["plus__items"] == "failed"
    assert ran.states["double"] == "success"
    assert "x has 2, y has 3" in ran.end.error
    assert ran.told == told_by_inline(uneven, run_id="r")


def test_written_lists_of_different_lengths_are_refused_alike() -> None:
    @pipeline
    def uneven() -> None:
        plus.map(x=[1, 2], y=[1, 2, 3])

    ran = run_pipeline(uneven, {"run_id": "r"})
    assert ran.state == "failed"
    assert "x has 2, y has 3" in ran.end.error


def test_what_is_no_list_cannot_be_fanned_out_over() -> None:
    @pipeline
    def scalar() -> None:
        double.map(x=joined([1]))

    ran = run_pipeline(scalar, {"run_id": "r"})
    assert ran.state == "failed"
    assert "is not a list or tuple" in ran.end.error
    assert ran.instances()["double__items"].try_number == 1


def test_one_failing_item_leaves_the_others_and_what_needs_them_all_does_not_run() -> None:
    @step
    def picky(x: int) -> int:
        if x == 1:
            raise ValueError("not this one")
        return x

    @pipeline
    def some(count: int = 3) -> None:
        left = picky.map(x=numbers(count))
        joined(left)
        double.map(x=left)

    ran = run_pipeline(some, {"run_id": "r"})
    assert ran.state == "failed"
    assert [ran.states[f"picky_{index}"] for index in range(3)] == ["success", "failed", "success"]
    assert ran.states["joined"] == "upstream_failed"
    assert {state for name, state in ran.states.items() if name.startswith("double")} == {"upstream_failed"}
    assert ran.told == told_by_inline(some, run_id="r")


def test_a_step_named_as_a_counting_task_is_refused() -> None:
    @pipeline
    def clash(items: list[int] = [1]) -> None:  # noqa: B006  # never changed
        double.map(x=items)
        numbers.with_options(name="double__items")(1)

    with pytest.raises(ValueError, match=r"'double__items'; rename the step @ step 'double__items'"):
        as_dag(clash)
