"""Steps that share a task: the plan of tasks, and that nobody can tell from what is left that they did."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from tailrace import Dataset, Pipeline, PipelineError, Ref, StepFailed, pipeline, step
from tailrace.adapters.testing import build, descriptions, left_behind


@step(group="prepare")
def rows(size: int = 3) -> list[int]:
    return list(range(size))


@step(group="prepare")
def doubled(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


@step
def total(numbers: list[int]) -> int:
    return sum(numbers)


def test_the_steps_of_a_group_are_one_task_whose_outputs_have_their_names() -> None:
    @pipeline
    def grouped(size: int = 3) -> None:
        total(doubled(rows(size)))

    plan = grouped.plan()
    assert [node.name for node in plan.nodes] == ["rows", "doubled", "total"]
    tasks = plan.tasks
    assert [node.name for node in tasks.nodes] == ["prepare", "total"]
    assert [output.name for output in tasks.node("prepare").outputs] == ["rows.rows", "doubled.doubled"]
    assert tasks.node("total").upstream == ("prepare",)
    assert tasks.origin is plan
    assert plan.version == Pipeline("grouped", function=grouped.function).plan().version


def test_a_plan_without_groups_is_its_own_plan_of_tasks_and_one_step_is_no_group() -> None:
    plan = Pipeline("p").add_step(rows).plan()
    assert plan.tasks is plan
    assert plan.origin is plan


def refused(function: Any) -> str:
    with pytest.raises(PipelineError) as error:
        pipeline(function).plan()
    return "\n".join(map(str, error.value.problems))


def test_a_group_around_a_step_that_is_not_in_it_is_refused() -> None:
    def around() -> None:
        total.with_options(group="prepare", name="sum")(doubled.with_options(group=None)(rows()))

    said = "its steps cannot be one task, since 'doubled', which is not in it, runs between them @ group 'prepare'"
    assert refused(around) == said


def test_a_group_of_a_mapped_step_and_another_is_refused() -> None:
    def mixed() -> None:
        doubled.map([rows(), rows()])

    assert "'doubled' is mapped and 'rows' is not" in refused(mixed)


def test_a_member_that_gathers_the_items_of_another_is_refused() -> None:
    @step(group="prepare")
    def scaled(number: int, numbers: list[int]) -> int:
        return number * len(numbers)

    @step(group="prepare")
    def item(number: int) -> int:
        return number

    def gathers() -> None:
        scaled.partial(numbers=item.map([1, 2])).map([3, 4])

    assert "'scaled' takes every item of 'item', and a task of the group has one" in refused(gathers)


def test_options_that_differ_within_a_group_and_names_that_meet_are_refused_together() -> None:
    def differing() -> None:
        total.with_options(name="prepare")(
            doubled.with_options(queue="b", prefect={"version": "2"})(
                rows.with_options(queue="a", prefect={"version": "1"})()
            )
        )

    said = refused(differing)
    assert "a step outside the group has its name; rename one of them @ group 'prepare'" in said
    assert "its steps give different values for queue: [\"'a'\", \"'b'\"]" in said
    assert "its steps give different values for prefect['version']" in said


def test_an_empty_name_is_no_group() -> None:
    with pytest.raises(PipelineError, match="group is ''; give a name, or None"):
        step(group="")(lambda: 1)


SEEN: list[int] = []


@step(outputs=["frame", "array", "numbers"], group="one")
def made() -> tuple[Dataset, Any, list[int]]:
    frame, array, numbers = pd.DataFrame({"a": [1, 2]}), np.arange(3), [1, 2]
    SEEN.extend(map(id, (frame, array, numbers)))
    return frame, array, numbers  # type: ignore[return-value]  # wrapped as declared


@step(group="one")
def changed(frame: Any, array: Any, numbers: list[int]) -> int:
    SEEN.extend(map(id, (array, numbers)))
    frame["a"] = 0
    array[:] = 0
    numbers.clear()
    return len(frame)


@step(group="one")
def again(frame: Any, numbers: list[int], count: int) -> list[int]:
    SEEN.extend(map(id, (numbers,)))
    return [*frame["a"], *numbers, count]


def test_values_are_handed_over_in_memory_to_the_last_that_takes_them_and_nobody_sees_changes(project: Path) -> None:
    SEEN.clear()

    @pipeline
    def hands() -> None:
        frame, array, numbers = made()
        again(frame, numbers, changed(frame, array, numbers))

    result = hands.run(orchestrator="inline")
    assert result.outputs["again"] == [1, 2, 1, 2, 2]
    _frame, array, numbers, array_changed, numbers_changed, numbers_again = SEEN
    assert array_changed == array  # its only receiver
    assert numbers_changed != numbers  # another takes it later
    assert numbers_again == numbers


def test_what_is_taken_by_references_alone_is_not_kept(project: Path) -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    @step(group="one")
    def array() -> np.ndarray[Any, Any]:
        alive.append(sum(found() is not None for found in made))
        new = np.zeros(3)
        made.append(weakref.ref(new))
        return new

    @step(group="one")
    def count(parts: list[Ref[Any]]) -> int:
        return len(parts)

    @pipeline
    def refers() -> None:
        count([array(), array(), array()])  # type: ignore[list-item]  # it takes references to them

    assert refers.run(orchestrator="inline").outputs["count"] == 3
    assert alive == [0, 0, 0]


def test_a_retried_member_gets_its_input_as_it_was(project: Path) -> None:
    tries: list[list[int]] = []

    @step(group="one", retries=1)
    def flaky(rows: list[int]) -> int:
        tries.append(list(rows))
        rows.append(99)
        if len(tries) == 1:
            raise OSError("not yet")
        return len(rows)

    @pipeline
    def retried() -> None:
        flaky(rows.with_options(group="one")())

    assert retried.run(orchestrator="inline").outputs["flaky"] == 4
    assert tries == [[0, 1, 2], [0, 1, 2]]


def _ended(description: Mapping[str, Any], folder: Path) -> bool:
    """Run a random pipeline in a folder; whether it completed."""
    (folder / "tailrace.yaml").write_text("project: {name: groups}\n")
    try:
        build(description).run(orchestrator="inline", run_id="r", config=str(folder / "tailrace.yaml"))
    except (StepFailed, PipelineError):
        return False
    return True


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(descriptions())
def test_a_random_pipeline_leaves_the_same_with_groups_and_without(
    tmp_path_factory: pytest.TempPathFactory, description: Mapping[str, Any]
) -> None:
    alone = {**description, "steps": [{**entry, "group": None} for entry in description["steps"]]}
    folders = [tmp_path_factory.mktemp(name) for name in ("grouped", "alone")]
    grouped, single = (_ended(one, folder) for one, folder in zip((description, alone), folders, strict=True))
    assert grouped == single
    if grouped:
        assert left_behind(folders[0]).differences(left_behind(folders[1])) == []
