"""Conditions are part of the plan like inputs; outside a pipeline they decide at once. Options are checked by name."""

from __future__ import annotations

import pickle

import pytest

from tailrace import ArtifactRef, Metrics, Model, Pipeline, PipelineError, StepSkipped, context, pipeline, step
from tailrace.core.annotations import allows_none
from tailrace.core.errors import TailraceError
from tailrace.core.plan import CONDITION, TRUTHY, Fixed, FromOutput, FromParam, Plan

REF = ArtifactRef("id", "file:///a/b", "blake3:1", "blake3:2", "Model", "m").to_dict()


@step
def data() -> list[int]:
    return [1]


@step
def kind(data: list[int]) -> str:
    return "poor"


@step
def even(x: int) -> bool:
    return x % 2 == 0


@step
def square(x: int) -> int:
    return x * x


@step
def total(values: list[int]) -> int:
    return sum(values)


def said(error: pytest.ExceptionInfo[PipelineError]) -> str:
    return "\n".join(map(str, error.value.problems))


def plan_of(wire, **params) -> Plan:  # type: ignore[no-untyped-def]
    return pipeline(wire).plan(params)


def test_a_condition_is_bound_under_a_key_that_no_parameter_can_have() -> None:
    def wired(go: bool = True) -> None:
        rows = data()
        total.when(kind(rows), equals="poor")(rows)
        total.with_options(name="other").when(go)(rows)
        total.with_options(name="never").when(False)(rows)

    plan = plan_of(wired)
    assert not CONDITION.isidentifier()
    assert plan.node("total").bindings == {"values": FromOutput("data", "data"), CONDITION: FromOutput("kind", "kind")}
    assert plan.node("total").equals == "poor"
    assert plan.node("total").upstream == ("data", "kind")
    assert plan.node("total").condition == "output 'kind' of step 'kind' is 'poor'"
    assert plan.node("other").bindings[CONDITION] == FromParam("go")
    assert plan.node("other").equals is TRUTHY
    assert plan.node("other").condition == "parameter 'go' is true"
    assert plan.node("never").bindings[CONDITION] == Fixed(False)
    assert plan.node("data").condition == ""


def test_wiring_by_names_gives_the_same_conditions() -> None:
    def wired(go: bool = True) -> None:
        rows = data()
        total.with_options(inputs=["data"]).when(kind(rows), equals="poor")(rows)
        square.when(go)(3)

    shared = context(go=True, x=3)
    by_names = (
        Pipeline("wired", context=shared)
        .add_step(data)
        .add_step(kind)
        .add_step(total.with_options(inputs=["data"]), when={"kind": "poor"})
        .add_step(square, when="go")
        .plan()
    )
    by_calls = plan_of(wired)
    for name in ("total", "square"):
        one, other = by_names.node(name), by_calls.node(name)
        assert one.bindings[CONDITION] == other.bindings[CONDITION]
        assert one.equals == other.equals
    assert set(by_names.params) == {"go", "x"}


def test_the_version_covers_the_condition() -> None:
    def version(when: object) -> str:
        made = Pipeline("p", context=context(go=1, x=1)).add_step(data).add_step(square, when="go")
        return made.add_step(kind, when=when).plan().version  # type: ignore[arg-type]  # any of the allowed

    assert len({version(when) for when in ("go", "data", {"go": 1}, {"go": 2})}) == 4


def test_a_mapped_step_has_the_condition_of_each_item_where_that_is_mapped_too() -> None:
    def wired(go: bool = True) -> None:
        rows = data()
        square.when(even.map(rows)).map(rows)
        square.with_options(name="all").when(go).map(rows)

    plan = plan_of(wired)
    assert plan.node("square").mapped == ("x", CONDITION)
    assert plan.node("all").mapped == ("x",)


def test_skipped_results_are_passed_through() -> None:
    def wired() -> None:
        rows = data()
        found = square.map(rows)
        total(found)
        total.with_options(name="two")([total.with_options(name="a")(rows), total.with_options(name="b")(rows)])

    plan = plan_of(wired)
    square_node, total_node, two = plan.node("square"), plan.node("total"), plan.node("two")
    assert plan.map_length(square_node, {}, {"data": None}) is None
    assert plan.skipped_source(square_node, {"data": None}) == "data"
    results = {"data": {"data": 1}, "square": [{"square": 10}, None], "a": {"a": 3}, "b": None}
    assert plan.task_refs(total_node, plan.task_inputs(total_node, results)) == {"values": [10, None]}
    assert plan.task_refs(two, plan.task_inputs(two, results)) == {"values": [3, None]}
    assert plan.task_refs(total_node, plan.task_inputs(total_node, {"square": None})) == {"values": None}


def test_everything_wrong_with_conditions_is_said_at_once() -> None:
    def wired() -> None:
        rows = data()
        total.when(square.map(rows))(rows)
        kind.when([data(), data()])(rows)

    with pytest.raises(PipelineError) as error:
        plan_of(wired)
    assert (
        "its condition is an output of the mapped step 'square'; decide on the list in a step @ step 'total'"
        in said(error)
    )
    assert "its condition is a list of outputs" in said(error)
    with pytest.raises(PipelineError) as error:
        Pipeline("p").add_step(data).add_step(kind, when="dat").plan()
    assert "when names 'dat', which no step makes and the context does not have. Did you mean 'data'?" in said(error)
    with pytest.raises(PipelineError, match="cycle: kind -> kind"):
        Pipeline("p").add_step(data).add_step(kind, when="kind").plan()
    with pytest.raises(PipelineError, match="name one output or context value"):
        Pipeline("p").add_step(data, when={"a": 1, "b": 2})
    with pytest.raises(PipelineError, match="it has a condition already"):
        kind.when(True).when(False)
    with pytest.raises(TypeError, match="when="):
        Pipeline("p").add_step(kind.when(True))


def test_a_condition_combines_with_partial_map_and_options() -> None:
    @step
    def scaled(x: int, factor: int) -> int:
        return x * factor

    def wired(go: bool = True) -> None:
        scaled.when(go).partial(factor=2).with_options(name="one").map(data())
        scaled.partial(factor=2).when(go).map(x=data())

    plan = plan_of(wired)
    for name in ("one", "scaled"):
        assert plan.node(name).bindings[CONDITION] == FromParam("go")
        assert plan.node(name).bindings["factor"] == Fixed(2)
        assert plan.node(name).mapped == ("x",)
        assert plan.node(name).step.condition is None


def test_outside_a_pipeline_a_condition_decides_at_once() -> None:
    assert square.when(True)(3) == 9
    assert square.when(0)(3) is None
    assert square.when("a", equals="a")(3) == 9
    assert square.when("a", equals="b")(3) is None
    assert square.when(True).map(x=[1, 2]) == [1, 4]
    assert square.when(False).map(x=[1, 2]) == []


def test_a_plan_with_conditions_is_pickled_with_its_marker() -> None:
    assert pickle.loads(pickle.dumps(TRUTHY)) is TRUTHY
    plan = Pipeline("p", context=context(go=True)).add_step(data, when="go").plan()
    assert pickle.loads(pickle.dumps(plan)).node("data").equals is TRUTHY


def test_a_skipped_step_is_no_failure_and_has_a_reason() -> None:
    assert issubclass(StepSkipped, TailraceError)
    assert str(StepSkipped()) == "the step said so"
    assert str(pickle.loads(pickle.dumps(StepSkipped("no new data")))) == "no new data"


@pytest.mark.parametrize(
    ("annotation", "allowed"),
    [
        (int | None, True),
        ("Model | None", True),
        ("Optional[Model]", True),
        (int, False),
        ("Model", False),
        (None, False),
        (list[int | None], False),
    ],
)
def test_an_annotation_says_whether_none_is_allowed(annotation: object, allowed: bool) -> None:
    assert allows_none(annotation) is allowed


def test_the_options_of_engines_are_kept_and_checked() -> None:
    made = step(pool="gpu", queue="big", priority=3, owner="ann", airflow={"sla": 1}, prefect={"log_prints": True})(
        lambda: 1
    )
    assert (made.pool, made.queue, made.priority, made.owner) == ("gpu", "big", 3, "ann")
    assert (made.airflow, made.prefect) == ({"sla": 1}, {"log_prints": True})
    assert made.with_options(airflow=None).airflow == {}
    with pytest.raises(PipelineError) as error:
        step(name="s", pool="", queue=1, priority=True, owner=0, airflow=[1], prefect={1: 2}, resources=3)(lambda: 1)  # type: ignore[call-overload]
    assert [problem.message.partition(" ")[0] for problem in error.value.problems] == [
        "pool",
        "queue",
        "owner",
        "priority",
        "resources",
        "airflow",
        "prefect",
    ]


@step
def judge(model: Model) -> Metrics:
    return Metrics(a=1)


@pytest.mark.parametrize("value", [REF, "s3://bucket/key", {"uri": "file:///a", "digest": "blake3:1"}])
def test_an_artifact_parameter_may_be_named(value: object) -> None:
    plan = Pipeline("p", context=context(model=None)).add_step(judge).plan()
    assert plan.params["model"].is_artifact
    assert plan.resolve_params({"model": value}) == {"model": value}


def test_a_reference_becomes_its_data() -> None:
    plan = Pipeline("p", context=context(model=None)).add_step(judge).plan()
    assert plan.resolve_params({"model": ArtifactRef.from_dict(REF)}) == {"model": REF}
