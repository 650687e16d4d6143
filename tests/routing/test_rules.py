"""Which destinations an output gets, and at which path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tailrace.core.names import check_key
from tailrace.core.refs import Route
from tailrace.routing.rules import decide, effective_rule, unmet
from tailrace.routing.stacks import Component, Rule, Stack
from tailrace.routing.templates import DEFAULT_PATH, PLACEHOLDERS, check_template, render

MLFLOW = Component("mlflow")


def stack(rules: dict[str, Rule] | None = None, **parts: Any) -> Stack:
    stores = {"default": Component("local"), "cold": Component("memory")}
    return Stack("s", "demo", Path("/p"), None, Component("local"), stores, rules=rules or {}, **parts)


def full(rules: dict[str, Rule] | None = None) -> Stack:
    return stack(rules, tracker=MLFLOW, registry=MLFLOW, deployer=Component("endpoint"))


def route(types: list[str], on: Stack, *, map_index: int | None = None, output: str = "out") -> Route:
    return decide(
        types,
        stack=on,
        project="demo",
        pipeline="pipe",
        run_id="r1",
        date="2026-11-21",
        step="train",
        output=output,
        map_index=map_index,
    )


# --- the built-in rules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "tracker", "registry"),
    [
        (["Model", "Asset"], None, "mlflow"),
        (["shop.Forecaster", "Model", "Asset"], None, "mlflow"),
        (["Prompt", "Asset"], None, "mlflow"),
        (["shop.Question", "Prompt", "Asset"], None, "mlflow"),
        (["Metrics", "Asset"], "mlflow", None),
        (["Parameters", "Asset"], "mlflow", None),
        (["Dataset", "Asset"], None, None),
        (["Checkpoint", "Asset"], None, None),
        (["pandas.DataFrame"], None, None),
        (["dict"], None, None),
        ([], None, None),
    ],
)
def test_every_type_is_stored_and_models_prompts_and_metrics_go_further(
    types: list[str], tracker: str | None, registry: str | None
) -> None:
    found = route(types, full())
    assert (found.store, found.tracker, found.registry, found.deployer) == ("default", tracker, registry, None)
    assert (found.rule, found.gate, found.on_error) == ("built-in", "", "fail")


@pytest.mark.parametrize("name", ["Model", "Prompt", "Metrics", "Parameters"])
def test_without_a_registry_or_tracker_everything_is_stored_only(name: str) -> None:
    found = route([name, "Asset"], stack())
    assert (found.store, found.tracker, found.registry) == ("default", None, None)


@pytest.mark.parametrize(
    ("parts", "registry"),
    [
        ({"tracker": MLFLOW}, "mlflow"),
        ({"tracker": Component("wandb")}, None),
        ({"registry": Component("vertex")}, None),
        ({"tracker": MLFLOW, "registry": Component("vertex")}, "mlflow"),
    ],
)
def test_a_prompt_goes_to_what_keeps_prompts(parts: dict[str, Any], registry: str | None) -> None:
    on = stack(**parts)
    assert route(["Prompt", "Asset"], on).registry == registry
    assert route(["Model", "Asset"], on).registry == (on.registry and on.registry.type)


def test_a_rule_sends_prompts_to_a_plug_ins_registry() -> None:
    for name in ("Prompt", "default"):
        on = stack({name: Rule(register=True)}, registry=Component("vertex"))
        assert route(["Prompt", "Asset"], on).registry == "vertex"


def test_a_rule_keeps_prompts_out_of_the_registry() -> None:
    for name in ("Prompt", "default"):
        assert route(["Prompt", "Asset"], full({name: Rule(register=False)})).registry is None


def test_the_route_is_of_the_most_specific_type() -> None:
    assert route(["shop.Forecaster", "Model"], full()).type == "shop.Forecaster"


# --- rules ------------------------------------------------------------------------------------------------------------


def test_the_rule_of_the_nearest_type_decides_alone_and_the_default_fills_in() -> None:
    rules = {
        "shop.Forecaster": Rule(store="cold"),
        "Model": Rule(register=False, on_error="fail"),
        "default": Rule(on_error="warn", store="default"),
    }
    found = route(["shop.Forecaster", "Model"], full(rules))
    assert (found.store, found.registry, found.on_error) == ("cold", "mlflow", "warn")
    assert found.rule == "artifact_routing.shop.Forecaster"


def test_each_field_comes_from_the_types_rule_else_the_default_rule_else_what_is_built_in() -> None:
    rules = {"Model": Rule(register=False), "default": Rule(store="cold", register=True)}
    rule, decided = effective_rule(["Model"], full(rules))
    assert (rule.register, rule.store, rule.path, rule.on_error) == (False, "cold", DEFAULT_PATH, "fail")
    assert decided == "artifact_routing.Model"


def test_the_default_rule_decides_where_no_type_has_one() -> None:
    found = route(["list"], full({"Model": Rule(), "default": Rule(store="cold")}))
    assert (found.store, found.rule) == ("cold", "artifact_routing.default")


def test_the_file_format_of_tables_comes_from_the_rules_field_by_field() -> None:
    on = stack({"Dataset": Rule(format="arrow"), "default": Rule(format="csv", compression="zstd")})
    assert [(r.format, r.compression) for r in (route(["Dataset"], on), route(["pandas.DataFrame"], on))] == [
        ("arrow", "zstd"),
        ("csv", "zstd"),
    ]
    assert (route(["Dataset"], stack()).format, route(["Dataset"], stack()).compression) == (None, None)


@pytest.mark.parametrize("types", [["Dataset", "Asset"], ["list"], ["Metrics", "Asset"]])
def test_the_default_rule_registers_models_and_prompts_and_deploys_models_only(types: list[str]) -> None:
    on = full({"default": Rule(register=True, deploy=True)})
    assert route(["Model"], on).deployer == "endpoint"
    assert (route(types, on).registry, route(types, on).deployer) == (None, None)
    assert (route(["Prompt"], on).registry, route(["Prompt"], on).deployer) == ("mlflow", None)


def test_the_default_rule_tracks_metrics_and_parameters_only() -> None:
    assert route(["Dataset"], full({"default": Rule(log_to_tracker=True)})).tracker is None
    assert route(["Metrics"], full({"default": Rule(log_to_tracker=False)})).tracker is None


def test_a_types_own_rule_can_send_it_to_the_tracker() -> None:
    assert route(["Report", "Asset"], full({"Report": Rule(log_to_tracker=True)})).tracker == "mlflow"


@pytest.mark.parametrize(
    ("rule", "gate"),
    [
        (Rule(deploy=True), "manual"),
        (Rule(deploy=True, deploy_condition="on_approval", deploy_min_metrics={"f1": 1}), "on_approval"),
        (Rule(deploy=True, deploy_condition="auto"), "auto"),
        (
            Rule(deploy=True, deploy_condition="auto", deploy_min_metrics={"accuracy": 0.9, "f1": 0.85}),
            "auto: accuracy >= 0.9, f1 >= 0.85",
        ),
        (Rule(deploy=False, deploy_condition="auto"), ""),
    ],
)
def test_the_gate_says_under_which_condition_a_model_is_deployed(rule: Rule, gate: str) -> None:
    assert route(["Model"], full({"Model": rule})).gate == gate


def test_thresholds_of_the_default_rule_hold_where_a_model_names_none() -> None:
    rules = {"Model": Rule(deploy=True, deploy_condition="auto"), "default": Rule(deploy_min_metrics={"f1": 0.5})}
    assert route(["Model"], full(rules)).gate == "auto: f1 >= 0.5"


@pytest.mark.parametrize(
    ("metrics", "reasons"),
    [
        ({"accuracy": 0.9, "other": float("nan")}, []),
        ({"accuracy": True}, []),
        ({}, ["accuracy is missing, and at least 0.9 is wanted"]),
        ({"accuracy": 0.8999}, ["accuracy is 0.8999, below 0.9"]),
        ({"accuracy": float("nan")}, ["accuracy is nan, which is no finite number"]),
        ({"accuracy": float("inf")}, ["accuracy is inf, which is no finite number"]),
        ({"accuracy": None}, ["accuracy is None, which is no finite number"]),
        ({"accuracy": 10**400}, [f"accuracy is {10**400}, which is no finite number"]),
    ],
)
def test_a_gate_opens_only_when_every_metric_is_there_finite_and_high_enough(
    metrics: dict[str, Any], reasons: list[str]
) -> None:
    assert unmet({"accuracy": 0.9}, metrics) == reasons


# --- paths ------------------------------------------------------------------------------------------------------------


def test_the_default_path_is_by_project_day_run_step_and_output() -> None:
    assert route(["dict"], stack()).path == "demo/2026-11-21/r1/data/train/out"


def test_the_items_of_a_mapped_step_have_six_digits_each() -> None:
    assert route(["dict"], stack(), map_index=7).path == "demo/2026-11-21/r1/data/train/out/000007"
    assert route(["dict"], stack(), map_index=1_234_567).path.endswith("/1234567")


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{run_id}/data/{step_name}", "r1/data/train/out"),
        ("{run_id}/models/{artifact_name}", "r1/models/out/train"),
        ("{project}/{pipeline}/{date}/{artifact_type}", "demo/pipe/2026-11-21/model/train/out"),
        ("latest", "latest/train/out"),
        ("{step_name}/{artifact_name}/", "train/out"),
        ("run-{run_id}/{step_name}.{artifact_name}", "run-r1/train.out/train"),
        ("{artifact_name}/{step_name}/{map_index}", "out/train/all"),
    ],
)
def test_a_template_is_filled_in_and_what_it_leaves_out_is_appended(template: str, path: str) -> None:
    assert route(["Model"], stack({"Model": Rule(path=template)})).path == path


def test_a_template_of_a_mapped_step_gets_the_index_where_it_says() -> None:
    on = stack({"Model": Rule(path="{map_index}/{step_name}/{artifact_name}")})
    assert route(["Model"], on, map_index=3).path == "000003/train/out"


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".", "..", "", "über", "x" * 300, "nul\0", "manifest.json"])
def test_whatever_a_name_is_it_stays_one_safe_folder(name: str) -> None:
    path = route(["dict"], stack(), output=name).path
    assert check_key(path) == path
    assert path.startswith("demo/2026-11-21/r1/data/train/")
    assert path.count("/") == 5


def test_what_two_safe_parts_make_together_is_made_safe_too() -> None:
    on = stack({"dict": Rule(path="{artifact_name}.json/{step_name}")})
    path = route(["dict"], on, output="manifest").path
    assert check_key(path) == path


NAMES = st.text("ab-.", max_size=4)
OUTPUTS = st.tuples(NAMES, NAMES, st.none() | st.integers(0, 3), st.sampled_from(["Model", "a", "b-", "list"]))
SEGMENTS = st.lists(st.sampled_from([f"{{{name}}}" for name in PLACEHOLDERS] + ["a", "-", "."]), min_size=1, max_size=4)
TEMPLATES = st.lists(SEGMENTS.map("".join), min_size=1, max_size=4).map("/".join)


def path_of(template: str, output: tuple[str, str, int | None, str]) -> str:
    step, name, index, kind = output
    values = {"run_id": "a-a", "project": "b", "date": "a", "pipeline": "-"}
    values |= {"step_name": step, "artifact_name": name, "artifact_type": kind}
    return render(template, values, map_index=index)


@given(TEMPLATES, OUTPUTS, OUTPUTS)
def test_two_outputs_of_a_run_never_get_one_path_whatever_the_template(template: str, one: Any, other: Any) -> None:
    assume(not check_template(template))
    assume(one[:3] != other[:3])
    assert path_of(template, one) != path_of(template, other)


@given(
    st.permutations(["step_name", "artifact_name", "artifact_type"]),
    st.sampled_from(["", "-", ".", "a"]),
    st.text("a-.", min_size=2, max_size=6),
)
def test_names_that_run_together_in_one_folder_are_told_apart(names: list[str], between: str, text: str) -> None:
    first, second, third = names
    cuts = [cut for cut in range(len(text)) if text.startswith(between, cut)]
    found = set()
    for cut in cuts:
        values = {first: text[:cut], second: text[cut + len(between) :], third: "same"}
        output = (values["step_name"], values["artifact_name"], None, values["artifact_type"])
        found.add(path_of(f"{{{first}}}{between}{{{second}}}", output))
    assert len(found) == len(cuts)


@given(TEMPLATES, OUTPUTS, OUTPUTS)
def test_no_output_lies_inside_of_another_steps(template: str, one: Any, other: Any) -> None:
    assume(not check_template(template))
    assume(one[:2] != other[:2])
    assert not path_of(template, one).startswith(f"{path_of(template, other)}/")


@given(TEMPLATES, st.tuples(st.text(), st.text(), st.none(), st.text()))
def test_a_sound_template_gives_a_safe_key_whatever_the_values(template: str, output: Any) -> None:
    assume(not check_template(template))
    path = path_of(template, output)
    assert check_key(path) == path


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{runid}/x", "There is no placeholder {runid}. Did you mean 'run_id'?"),
        ("{}", "There is no placeholder {}."),
        ("{0}", "There is no placeholder {0}."),
        ("{run_id.__class__}", "There is no placeholder {run_id.__class__}."),
        ("{run_id[0]}", "There is no placeholder {run_id[0]}."),
        ("{map_index:03d}", "Write {map_index} plainly"),
        ("{run_id!r}", "Write {run_id} plainly"),
        ("{run_id", "This is no template: "),
        ("a}b", "This is no template: "),
        ("{{x}}", "not '{x}'"),
        ("/abs", "'' cannot be a folder"),
        ("a//b", "'' cannot be a folder"),
        ("", "'' cannot be a folder"),
        ("../{run_id}", "'..' cannot be a folder"),
        ("manifest.json", "'manifest.json' cannot be a folder"),
        ("my models/{run_id}", "not 'my models'"),
        ("a\\{run_id}", "not 'a\\\\'"),
    ],
)
def test_an_unsound_template_is_told_why(template: str, message: str) -> None:
    assert message in " ".join(check_template(template))


def test_all_that_is_wrong_with_a_template_is_told_at_once() -> None:
    assert len(check_template("../{runid}/{step_name:>3}/ü")) == 4
