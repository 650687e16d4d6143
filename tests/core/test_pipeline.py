"""Pipelines are planned whole before anything runs; whatever is wrong with one is said at once, by name."""

from __future__ import annotations

import pickle

import pytest

from tailrace import Dataset, Metrics, Model, Pipeline, PipelineError, context, pipeline, step
from tailrace.core.plan import Fixed, FromOutput, FromParam, Gather


@step(outputs=["data"])
def load_data() -> Dataset:
    return Dataset([{"x": 1}], name="rows")


@step(outputs=["model"])
def train(data: Dataset, lr: float) -> Model:
    return Model({"lr": lr})


@step(outputs=["metrics"])
def evaluate(model: Model, data: Dataset) -> Metrics:
    return Metrics(lr=model.data["lr"])


@step(outputs=["left", "right"])
def split(data: Dataset, share: float = 0.5) -> tuple[list[int], list[int]]:
    return [1], [2]


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def square(x: int) -> int:
    return x * x


@step
def total(values: list[int]) -> int:
    return sum(values)


def problems(error: pytest.ExceptionInfo[PipelineError]) -> str:
    return "\n".join(map(str, error.value.problems))


def test_a_step_outside_a_pipeline_is_its_function() -> None:
    assert square(7) == 49
    assert square.map(x=[1, 2, 3]) == [1, 4, 9]
    assert vars(square)["__name__"] == "square"


def test_a_step_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(square)) is square


def test_wiring_by_names_and_by_calls_give_the_same_plan() -> None:
    by_names = Pipeline("p", context=context(lr=0.1)).add_step(load_data).add_step(train).add_step(evaluate).plan()

    @pipeline(name="p")
    def by_calls(lr: float = 0.1) -> None:
        data = load_data()
        evaluate(train(data, lr), data)

    calls = by_calls.plan()
    assert [node.name for node in by_names.nodes] == [node.name for node in calls.nodes]
    assert [dict(node.bindings) for node in by_names.nodes] == [dict(node.bindings) for node in calls.nodes]
    assert by_names.version == calls.version
    assert by_names.params["lr"].default == calls.params["lr"].default == 0.1


def test_steps_may_be_added_in_any_order() -> None:
    plan = Pipeline("p", context=context(lr=0.1)).add_step(evaluate).add_step(train).add_step(load_data).plan()
    assert [node.name for node in plan.nodes] == ["load_data", "train", "evaluate"]


def test_inputs_may_name_outputs_that_differ_from_the_parameters() -> None:
    by_position = step(inputs=["data"])(lambda rows: rows)
    by_mapping = step(inputs={"rows": "data"}, name="second")(lambda rows: rows)
    plan = Pipeline("p").add_step(load_data).add_step(by_position, name="first").add_step(by_mapping).plan()
    for node in plan.nodes[1:]:
        assert node.bindings == {"rows": FromOutput("load_data", "data")}


def test_a_step_that_is_added_under_another_name_gives_its_output_that_name() -> None:
    low = step(name="fit")(lambda rate: rate)
    best = step(name="best")(lambda first, second: max(first, second))
    uses = Pipeline("p", context=context(rate=0.1)).add_step(low, name="first").add_step(low, name="second")
    plan = uses.add_step(best).plan()
    assert plan.node("best").bindings == {
        "first": FromOutput("first", "first"),
        "second": FromOutput("second", "second"),
    }


def test_a_parameter_with_a_default_is_optional() -> None:
    plan = Pipeline("p").add_step(load_data).add_step(split).plan()
    assert "share" not in plan.node("split").bindings
    given = Pipeline("p").add_step(load_data).add_step(split).plan({"share": 0.9})
    assert given.node("split").bindings["share"] == FromParam("share")


def test_fan_out_and_fan_in_are_explicit_in_the_plan() -> None:
    @pipeline
    def fan(count: int = 3) -> None:
        total(square.map(x=numbers(count)))

    plan = fan.plan()
    assert plan.node("square").mapped == ("x",)
    assert plan.node("total").bindings == {"values": FromOutput("square", "square")}


def test_map_over_wires_by_names_the_same_fan_out() -> None:
    squares = step(inputs=["numbers"], outputs=["values"])(square.fn)
    plan = (
        Pipeline("fan", context=context(count=3))
        .add_step(numbers)
        .add_step(squares, name="square", map_over="x")
        .add_step(total)
        .plan()
    )
    assert plan.node("square").mapped == ("x",)


def test_several_outputs_are_taken_by_position_or_by_name() -> None:
    @pipeline
    def two() -> None:
        parts = split(load_data())
        left, _ = parts
        total(left)
        total(parts.right)  # type: ignore[attr-defined]  # while it is planned, a tuple whose items have names

    plan = two.plan()
    assert plan.node("total").bindings["values"] == FromOutput("split", "left")
    assert plan.node("total-2").bindings["values"] == FromOutput("split", "right")


def test_a_list_of_outputs_is_gathered_in_order() -> None:
    @pipeline
    def gather() -> None:
        total([square(1), square(2)])

    plan = gather.plan()
    assert plan.node("square").bindings == {"x": Fixed(1)}
    wanted = Gather((FromOutput("square", "square"), FromOutput("square-2", "square-2")))
    assert plan.node("total").bindings == {"values": wanted}


def test_a_pipeline_called_inside_another_becomes_part_of_it() -> None:
    @pipeline
    def inner(count: int):  # type: ignore[no-untyped-def]  # what a step call gives is a stand-in
        return square.map(x=numbers(count))

    @pipeline
    def outer(count: int = 2) -> None:
        total(inner(count))

    assert [node.name for node in outer.plan().nodes] == ["numbers", "square", "total"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    @step
    def needs(missing: int, dat: Dataset) -> int:
        return missing

    with pytest.raises(PipelineError) as error:
        Pipeline("p").add_step(load_data).add_step(needs).add_step(train).plan()
    said = problems(error)
    assert "no step makes 'missing'" in said
    assert "Did you mean 'data'? @ step 'needs', parameter 'dat'" in said
    assert "no step makes 'lr'" in said
    assert "step 'train', parameter 'lr'" in said


def test_a_cycle_is_named_step_by_step() -> None:
    first = step(outputs=["a"], name="first")(lambda b: b)
    second = step(outputs=["b"], name="second")(lambda a: a)
    with pytest.raises(PipelineError, match=r"cycle: (first -> second -> first|second -> first -> second)"):
        Pipeline("p").add_step(first).add_step(second).plan()


def test_a_step_that_takes_its_own_output_is_a_cycle() -> None:
    own = step(outputs=["a"], name="own")(lambda a: a)
    with pytest.raises(PipelineError, match="cycle: the step takes its own output 'a'"):
        Pipeline("p").add_step(own).plan()


def test_types_that_cannot_fit_name_both_steps() -> None:
    @step
    def wants_text(numbers: str) -> str:
        return numbers

    with pytest.raises(PipelineError) as error:
        Pipeline("p", context=context(count=1)).add_step(numbers).add_step(wants_text).plan()
    said = problems(error)
    assert "annotated str, but the output 'numbers' of step 'numbers' is list[int]" in said
    assert "step 'wants_text', parameter 'numbers'" in said


def test_a_fan_in_must_take_a_list() -> None:
    @pipeline
    def wrong() -> None:
        square(square.map(x=[1, 2]))

    with pytest.raises(PipelineError, match=r"it is annotated int, but .* is list\[int\]"):
        wrong.plan()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lrr": 1.0}, "unknown parameter 'lrr'. Did you mean 'lr'?"),
        ({"lr": "fast"}, "'fast' is not of the annotated type float"),
    ],
)
def test_parameters_are_checked_before_the_run(given: dict[str, object], said: str) -> None:
    plan = Pipeline("p", context=context(lr=0.1)).add_step(load_data).add_step(train).plan()
    with pytest.raises(PipelineError, match=said.replace("?", r"\?")):
        plan.resolve_params(given)


def test_an_integer_is_a_good_float_and_a_boolean_is_not() -> None:
    plan = Pipeline("p", context=context(lr=0.1)).add_step(load_data).add_step(train).plan()
    assert plan.resolve_params({"lr": 1}) == {"lr": 1}
    with pytest.raises(PipelineError, match="True is not of the annotated type float"):
        plan.resolve_params({"lr": True})


def test_a_context_parameter_that_no_step_takes_is_a_mistake() -> None:
    with pytest.raises(PipelineError, match=r"no step takes the context parameter 'shar'\. Did you mean 'share'\?"):
        Pipeline("p", context=context(shar=0.9)).add_step(load_data).add_step(split).plan()


def test_a_required_parameter_must_be_given() -> None:
    @pipeline
    def needs(count: int) -> None:
        numbers(count)

    with pytest.raises(
        PipelineError, match="no value is given and there is no default @ pipeline 'needs', parameter 'count'"
    ):
        needs.plan().resolve_params({})


@pytest.mark.parametrize("use", [lambda x: x + 1, lambda x: bool(x), lambda x: list(x), lambda x: x["a"]])
def test_a_stand_in_cannot_be_looked_at(use: object) -> None:
    @pipeline
    def looks() -> None:
        use(numbers(3))  # type: ignore[operator]  # the parameter is one of the functions above

    with pytest.raises(PipelineError, match=r"known only when the pipeline runs.*output 'numbers' of step 'numbers'"):
        looks.plan()


def test_options_are_checked_where_they_are_written() -> None:
    with pytest.raises(PipelineError, match="retries is -1"):
        step(retries=-1)(square.fn)
    with pytest.raises(PipelineError, match=r"unknown option 'retry'\. Did you mean 'retries'\?"):
        square.with_options(retry=2)


def test_the_delays_of_retries_repeat_the_last_one() -> None:
    assert step(retries=3, retry_delay=[1, 5])(square.fn).delays == (1, 5, 5)
    assert step(retries=2, retry_delay=0.5)(square.fn).delays == (0.5, 0.5)


def test_names_that_a_run_takes_itself_are_refused() -> None:
    @pipeline
    def taken(stack: str = "x") -> None:
        numbers(3)

    with pytest.raises(PipelineError, match="the parameter name 'stack' is taken by the run itself"):
        taken.plan()


def test_a_pipeline_without_steps_is_refused() -> None:
    with pytest.raises(PipelineError, match="it has no steps"):
        Pipeline("empty").plan()


def test_the_version_changes_with_the_code_and_the_wiring() -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    def version(body: object, **options: object) -> str:
        return Pipeline("p").add_step(step(name="same", **options)(body)).plan().version  # type: ignore[call-overload]

    assert version(one) == version(one)
    assert version(one) != version(two)
    assert version(one) != version(one, outputs=["other"])
