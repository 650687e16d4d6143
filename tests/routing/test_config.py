"""``tailrace.yaml``: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tailrace import ConfigError
from tailrace.core.plugins import entry_points
from tailrace.routing import schema
from tailrace.routing.rules import decide
from tailrace.routing.stacks import Rule, Stack, list_stacks, resolve_stack, validate_config
from tailrace.stores.build import build_store

PLUG_INS = {
    "stores": ["swift", "azure_blob"],
    "trackers": ["wandb"],
    "registries": ["vertex_model_registry", "sagemaker_model_registry"],
    "deployers": ["vertex_endpoint", "sagemaker_endpoint"],
    "orchestrators": ["vertex_ai", "sagemaker"],
}


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that provides the destinations of the clouds, as any third party's would."""
    info = tmp_path / "site" / "clouds-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clouds\nVersion: 1.0\n")
    lines = [
        f"[tailrace.{group}]\n" + "".join(f"{name} = clouds:{name}\n" for name in names)
        for group, names in PLUG_INS.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(info.parent))
    entry_points.cache_clear()
    yield
    entry_points.cache_clear()


def known_properties() -> set[str]:
    models = schema.json_schema()
    return {name for model in (models, *models["$defs"].values()) for name in model.get("properties", {})}


def write(text: str, name: str = "tailrace.yaml") -> Path:
    path = Path(name).absolute()
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def problems(text: str, stack: str | None = None) -> list[str]:
    """What resolving the stack says is wrong."""
    write(text)
    with pytest.raises(ConfigError) as caught:
        resolve_stack(stack)
    return [str(problem) for problem in caught.value.problems]


def everywhere(text: str) -> list[str]:
    """What validating the whole file says is wrong."""
    write(text)
    return [str(problem) for problem in validate_config()]


# --- both forms -------------------------------------------------------------------------------------------------------


def test_a_plugins_block_is_one_stack_named_default() -> None:
    path = write(
        """
        version: 1
        project: {name: water}
        catalog: {url: "postgresql://db/catalog"}
        plugins:
          orchestrator: {type: inline}
          experiment_tracker: {type: mlflow, tracking_uri: "http://localhost:5000", experiment_name: mine}
          model_registry: {type: mlflow}
          artifact_store: {type: local, base_path: ./here, durable: false}
          artifact_stores: {cold: {type: memory}}
          artifact_routing:
            Model: {store: cold, register: true, on_error: warn}
            default: {store: local, path: "{run_id}/{step_name}"}
          allow_pickle: fallback
        """
    )
    stack = resolve_stack()
    assert (stack.name, stack.project, stack.root, stack.source) == ("default", "water", path.parent, path)
    assert (stack.orchestrator.type, stack.orchestrator.options) == ("inline", {})
    assert stack.tracker is not None
    assert stack.tracker.options == {"tracking_uri": "http://localhost:5000", "experiment_name": "mine"}
    assert stack.tracker.place == "tailrace.yaml @ plugins.experiment_tracker (line 7)"
    assert stack.registry is not None
    assert stack.registry.options == {}
    assert stack.stores["default"].options == {"path": "./here", "durable": False}
    assert stack.stores["cold"].options == {"bucket": "default"}
    assert stack.rules == {
        "Model": Rule(store="cold", register=True, on_error="warn"),
        "default": Rule(store="default", path="{run_id}/{step_name}"),
    }
    assert (stack.allow_pickle, stack.catalog_url) == ("fallback", "postgresql://db/catalog")


def test_stacks_have_names_and_the_active_one_is_used() -> None:
    write("stacks: {a: {allow_pickle: always}, b: {allow_pickle: fallback}}\nactive_stack: b")
    assert [resolve_stack(name).allow_pickle for name in (None, "a", "b", "local")] == [
        "fallback",
        "always",
        "fallback",
        "never",
    ]


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "stacks:\n", "plugins:\n", "stacks:\n  local:\n", "version: 1\n"]
)
def test_what_is_left_empty_is_all_defaults(text: str) -> None:
    write(text)
    stack = resolve_stack()
    assert (stack.stores["default"].options["path"], stack.tracker, stack.rules) == (".tailrace/artifacts", None, {})
    assert validate_config() == ()


def test_a_file_may_redefine_the_stack_local() -> None:
    write("stacks: {local: {allow_pickle: always}}")
    assert resolve_stack().allow_pickle == "always"


def test_one_of_the_named_stores_can_be_the_default_one() -> None:
    write(
        "plugins: {artifact_stores: {default: {type: memory, bucket: b}}, artifact_routing: {Model: {store: memory}}}"
    )
    stack = resolve_stack()
    assert (stack.stores["default"].options, stack.rules["Model"].store) == ({"bucket": "b"}, "default")


def test_a_stores_name_goes_before_the_default_stores_type() -> None:
    write("plugins: {artifact_stores: {local: {type: memory}}, artifact_routing: {Model: {store: local}}}")
    assert resolve_stack().rules["Model"].store == "local"


def test_anchors_and_merges_are_followed() -> None:
    write(
        """
        stacks:
          a: &base {allow_pickle: always, artifact_store: {type: memory, bucket: x}}
          b: {<<: *base, allow_pickle: never}
        """
    )
    stack = resolve_stack("b")
    assert (stack.stores["default"].options, stack.allow_pickle) == ({"bucket": "x"}, "never")


def test_the_parts_of_plug_ins_have_the_options_that_are_written(plug_ins: None) -> None:
    write("plugins: {artifact_store: {type: swift, bucket: b, retries: 3}, model_deployer: {type: vertex_endpoint}}")
    stack = resolve_stack()
    assert (stack.stores["default"].type, stack.stores["default"].options) == ("swift", {"bucket": "b", "retries": 3})
    assert stack.deployer is not None


def test_a_bucket_is_a_store_with_its_settings() -> None:
    write(
        """
        plugins:
          artifact_store: {type: s3, bucket: rivers, region: eu-west-1, endpoint_url: "http://here:9000", retries: 2}
          artifact_stores:
            g: {type: gcs, bucket: lakes, project: water, prefix: ""}
            a: {type: azure, bucket: seas, account: salt, concurrency: 4}
          artifact_routing: {Model: {store: s3}, Dataset: {store: a}}
        """
    )
    stack = resolve_stack()
    built = {
        name: build_store(part.type, part.options, name=name, allow_pickle="never").to_dict()
        for name, part in stack.stores.items()
    }
    assert built == {
        "default": {
            "type": "s3",
            "name": "default",
            "bucket": "rivers",
            "prefix": "tailrace",
            "endpoint_url": "http://here:9000",
            "retries": 2,
            "concurrency": 16,
            "timeout": 60.0,
            "deduplicate": False,
            "region": "eu-west-1",
        },
        "g": {
            "type": "gcs",
            "name": "g",
            "bucket": "lakes",
            "prefix": "",
            "endpoint_url": None,
            "retries": 5,
            "concurrency": 16,
            "timeout": 60.0,
            "deduplicate": False,
            "project": "water",
        },
        "a": {
            "type": "azure",
            "name": "a",
            "bucket": "seas",
            "prefix": "tailrace",
            "endpoint_url": None,
            "retries": 5,
            "concurrency": 4,
            "timeout": 60.0,
            "deduplicate": False,
            "account": "salt",
        },
    }
    assert {name: rule.store for name, rule in stack.rules.items()} == {"Model": "default", "Dataset": "a"}


# --- what is wrong ----------------------------------------------------------------------------------------------------

WRONG = """
version: 2
project: {nme: x}
stack: {}
active_stack: prdo
stacks:
  prod:
    artifact_store: {type: local, pth: ./x, durable: maybe}
    artifact_stores:
      cold: {path: x}
      hot: s3
    experiment_traker: {type: mlflow}
    model_registry: {type: mlfow}
    allow_pickle: sometimes
    artifact_routing:
      Modl: {}
      Model: {store: colt, regster: true, deploy: true, deploy_condition: auot, path: "{runid}"}
      Dataset: {store: 3, register: true}
      DataFrame: {deploy_min_metrics: {f1: high}}
"""


def test_all_problems_are_reported_at_once_each_with_file_key_line_and_the_nearest_name() -> None:
    prod = "tailrace.yaml @ stacks.prod"
    rules = f"{prod}.artifact_routing"
    maybe = "'maybe' is not allowed here: input should be a valid boolean, unable to interpret input"
    high = "'high' is not allowed here: input should be a valid number, unable to parse string as a number"
    mlfow = (
        "Nothing that is installed provides the registry type 'mlfow'. Did you mean 'mlflow'?"
        " A plug-in provides one through the entry point group 'tailrace.registries'."
    )
    full_name = "A class of a library goes by its full name, as in 'pandas.DataFrame'."
    expected = [
        "2 is not allowed here: input should be 1 @ tailrace.yaml @ version (line 2)",
        "Unknown key 'nme'. Did you mean 'name'? @ tailrace.yaml @ project.nme (line 3)",
        "Unknown key 'stack'. Did you mean 'stacks'? @ tailrace.yaml @ stack (line 4)",
        "There is no stack 'prdo'. Did you mean 'prod'? @ tailrace.yaml @ active_stack (line 5)",
        f"Unknown key 'pth'. Did you mean 'path'? @ {prod}.artifact_store.pth (line 8)",
        f"{maybe} @ {prod}.artifact_store.durable (line 8)",
        f"The key 'type' is missing @ {prod}.artifact_stores.cold (line 10)",
        f"Expected a mapping (key: value), not 's3' @ {prod}.artifact_stores.hot (line 11)",
        f"Unknown key 'experiment_traker'. Did you mean 'experiment_tracker'? @ {prod}.experiment_traker (line 12)",
        f"{mlfow} @ {prod}.model_registry.type (line 13)",
        f"'sometimes' is not allowed here. Known: always, fallback, never. @ {prod}.allow_pickle (line 14)",
        f"'Modl' is no artifact type. Did you mean 'Model'? {full_name} @ {rules}.Modl (line 16)",
        f"There is no store 'colt'. Did you mean 'cold'? @ {rules}.Model.store (line 17)",
        f"Unknown key 'regster'. Did you mean 'register'? @ {rules}.Model.regster (line 17)",
        f"'deploy: true' needs a model_deployer, and this stack has none @ {rules}.Model.deploy (line 17)",
        f"'auot' is not allowed here. Did you mean 'auto'? @ {rules}.Model.deploy_condition (line 17)",
        f"There is no placeholder {{runid}}. Did you mean 'run_id'? @ {rules}.Model.path (line 17)",
        f"Expected text, not 3; what is meant as text goes in quotes @ {rules}.Dataset.store (line 18)",
        f"'register' is for models and prompts, and Dataset is none @ {rules}.Dataset.register (line 18)",
        f"'DataFrame' is no artifact type. Did you mean 'Dataset'? {full_name} @ {rules}.DataFrame (line 19)",
        f"{high} @ {rules}.DataFrame.deploy_min_metrics.f1 (line 19)",
    ]
    assert sorted(problems(WRONG, "prod")) == sorted(expected)
    assert sorted(everywhere(WRONG)) == sorted(expected)


def test_the_error_names_the_file_and_counts_the_problems() -> None:
    path = write("active_stack: 5\nx: 1")
    with pytest.raises(ConfigError) as caught:
        resolve_stack()
    assert str(caught.value).startswith(f"{path}: 2 problems\n  - ")


def test_the_form_of_every_stack_is_checked_whichever_is_used() -> None:
    found = problems("stacks: {a: {}, b: {artifact_store: {type: memory, buket: x}, allow_pickle: no}}", "a")
    assert [line.partition(" @ ")[0] for line in found] == [
        "Unknown key 'buket'. Did you mean 'bucket'?",
        "False is not allowed here. Known: always, fallback, never.",
    ]


def test_what_another_stack_lacks_does_not_matter_and_is_found_by_validation() -> None:
    text = """
        stacks:
          here: {}
          cloud:
            artifact_store: {type: swift, bucket: "${BUCKET}"}
            artifact_routing: {Model: {store: archive, register: true}}
    """
    write(text)
    assert resolve_stack("here").name == "here"
    assert resolve_stack("local").name == "local"
    places = [line.rpartition(" @ ")[2] for line in everywhere(text)]
    assert places == [
        "stacks.cloud.artifact_store.bucket (line 5)",
        "stacks.cloud.artifact_store.type (line 5)",
        "stacks.cloud.artifact_routing.Model.store (line 6)",
        "stacks.cloud.artifact_routing.Model.register (line 6)",
    ]
    assert len(problems(text, "cloud")) == 4


def test_a_tracker_that_is_asked_for_and_not_there_is_left_out() -> None:
    write("plugins: {artifact_routing: {Metrics: {log_to_tracker: true}}}")
    assert route(["Metrics"], resolve_stack())[1] is None


@pytest.mark.parametrize("kind", ["Model", "default", "sklearn.base.BaseEstimator"])
@pytest.mark.parametrize(("key", "needs"), [("register", "model_registry"), ("deploy", "model_deployer")])
@pytest.mark.parametrize("value", ["true", "${YES:-true}"])
def test_registering_and_deploying_need_a_registry_and_a_deployer(kind: str, key: str, needs: str, value: str) -> None:
    (found,) = problems(f'plugins: {{artifact_routing: {{{kind}: {{{key}: "{value}"}}}}}}')
    assert found == (
        f"'{key}: true' needs a {needs}, and this stack has none"
        f" @ tailrace.yaml @ plugins.artifact_routing.{kind}.{key} (line 1)"
    )


def test_a_prompt_is_registered_by_the_registry_or_by_an_mlflow_tracker() -> None:
    for part in ("model_registry", "experiment_tracker"):
        write(f"plugins: {{{part}: {{type: mlflow}}, artifact_routing: {{Prompt: {{register: true}}}}}}")
        assert route(["Prompt"], resolve_stack())[2] == "mlflow"
    (found,) = problems("plugins: {artifact_routing: {Prompt: {register: true}}}")
    assert found.startswith("'register: true' needs a model_registry, and this stack has none")
    (found,) = problems("plugins: {model_deployer: {type: x}, artifact_routing: {Prompt: {deploy: true}}}")[1:]
    assert found.startswith("'deploy' is for models, and Prompt is none")


def test_not_registering_needs_no_registry() -> None:
    write("plugins: {artifact_routing: {Model: {register: false, deploy: false}}}")
    assert resolve_stack().rules["Model"].register is False


def test_both_forms_in_one_file_are_one_too_many() -> None:
    (found,) = problems("plugins: {}\nstacks: {a: {}}")
    assert "'plugins' is a stack without a name" in found


def test_two_default_stores_are_one_too_many() -> None:
    (found,) = problems("plugins: {artifact_store: {type: memory}, artifact_stores: {default: {type: local}}}")
    assert found.endswith("@ tailrace.yaml @ plugins.artifact_stores.default (line 1)")


def test_a_path_with_two_names_is_one_too_many() -> None:
    (found,) = problems("plugins: {artifact_store: {type: local, path: a, base_path: b}}")
    assert "plugins.artifact_store.base_path" in found


@pytest.mark.parametrize("name", ["Model", "dict", "default", "pandas.DataFrame", "mine._Private", "__main__.Asset"])
def test_a_rule_is_for_an_artifact_type_a_plain_type_a_full_name_or_all(name: str) -> None:
    write(f"plugins: {{artifact_routing: {{{name}: {{store: default}}}}}}")
    assert set(resolve_stack().rules) == {name}


@pytest.mark.parametrize("name", ["model", "frame", ".DataFrame", "pandas.", "pandas..x", "a b.c", "2.x"])
def test_a_rule_for_anything_else_is_an_error(name: str) -> None:
    (found,) = problems(f'plugins: {{artifact_routing: {{"{name}": {{store: default}}}}}}')
    assert found.startswith(f"{name!r} is no artifact type.")


def test_what_is_wrong_with_a_bucket_is_told_with_its_key() -> None:
    found = problems(
        """
        plugins:
          artifact_store: {type: s3, buckett: rivers, retries: many, concurrency: 0}
          artifact_stores: {g: {type: gcs, bucket: ab, region: x}, z: {type: s33, bucket: rivers}}
        """
    )
    assert {line.rpartition(" @ ")[2].partition(" ")[0].removeprefix("plugins.") for line in found} == {
        "artifact_store",
        "artifact_store.buckett",
        "artifact_store.retries",
        "artifact_store.concurrency",
        "artifact_stores.g.bucket",
        "artifact_stores.g.region",
        "artifact_stores.z.type",
    }
    assert any("Unknown key 'buckett'. Did you mean 'bucket'?" in line for line in found)
    assert any("Did you mean 's3'?" in line for line in found)


def test_a_store_of_a_bad_project_default_is_an_error() -> None:
    (found,) = problems('project: {default_storage: "ftp://me:word@host"}')
    assert found == (
        "No store is known for 'ftp://***@host'. Known: a path, file:///path, memory://name, s3://bucket/prefix,"
        " gs://bucket/prefix, az://bucket/prefix @ tailrace.yaml @ project.default_storage (line 1)"
    )


# --- YAML itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stacks: {a: {}\nb", r"This is no YAML: .* @ tailrace.yaml \(line 2, column \d\)"),
        ("a: b: c", r"This is no YAML: .* @ tailrace.yaml \(line 1, column 5\)"),
        ("stacks:\n\ta: 1", r"This is no YAML: .*token.* @ tailrace.yaml \(line 2, column 1\)"),
        ("a: !!python/object/apply:os.getcwd []", r"This is no YAML: .*could not determine a constructor.* \(line 1"),
        ("a: 1\n---\nb: 2", r"This is no YAML: .*another document.* \(line 2"),
        ("a: *x", r"This is no YAML: found undefined alias"),
        ("a: &x [*x]", r"This is no YAML: an alias that is inside of what it stands for"),
        ("? [a]\n: 1", r"This is no YAML: .*unhashable"),
        ("a: 2026-13-45", r"This is no YAML: month must be in 1..12"),
        ("a: \x01", r"This is no YAML: .*control characters"),
        ("[" * 5000, r"This is no YAML: "),
        ("- a\n- b", r"Expected a mapping \(key: value\), not a list @ tailrace.yaml$"),
        ("just text", r"Expected a mapping \(key: value\), not 'just text' @ tailrace.yaml$"),
        (
            "plugins: {artifact_store: {type: gcs, bucket: ${BUCKET} }}",
            r'Inside of { } put a variable in quotes: "\${NAME}"',
        ),
    ],
)
def test_what_is_no_yaml_is_one_problem_with_its_line(text: str, message: str) -> None:
    write(text)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_stack()
    assert len(caught.value.problems) == 1
    assert validate_config() == caught.value.problems


def test_a_key_that_is_there_twice_is_an_error_with_both_lines() -> None:
    found = problems("stacks:\n  a: {}\n  b:\n    allow_pickle: never\n    allow_pickle: always\n  a: {}\n")
    assert found == [
        "The key 'allow_pickle' is there twice, first in line 4 @ tailrace.yaml @ stacks.b.allow_pickle (line 5)",
        "The key 'a' is there twice, first in line 2 @ tailrace.yaml @ stacks.a (line 6)",
    ]


@pytest.mark.parametrize("key", ["yes", "2026", "2026-01-01", "~", "1.5"])
def test_a_key_that_yaml_reads_as_something_else_than_text_is_an_error(key: str) -> None:
    (found,) = problems(f"stacks:\n  {key}: {{}}\n")
    assert found == f"The key {key!r} is not text; put it in quotes @ tailrace.yaml @ stacks.{key} (line 2)"


def test_a_folder_of_that_name_is_an_error(project: Path) -> None:
    (project / "tailrace.yaml").mkdir()
    with pytest.raises(ConfigError, match="The file cannot be read: Is a directory"):
        resolve_stack()


def test_a_link_to_nowhere_is_an_error(project: Path) -> None:
    (project / "tailrace.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="The file cannot be read: No such file"):
        resolve_stack()


def test_a_file_that_is_not_utf8_is_an_error(project: Path) -> None:
    (project / "tailrace.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        resolve_stack()


def test_a_byte_order_mark_is_no_matter(project: Path) -> None:
    (project / "tailrace.yaml").write_bytes("\ufeffproject: {name: ü}".encode())
    assert resolve_stack().project == "ü"


def test_a_file_without_problems_or_no_file_validates() -> None:
    assert validate_config() == ()
    write("plugins: {artifact_store: {type: memory}}")
    assert validate_config() == ()


KEYS = sorted({*known_properties(), "local", "default", "Model", "pandas.DataFrame", "type", "x", ""})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(
        [
            "local",
            "memory",
            "mlflow",
            "default",
            "cold",
            "auto",
            "true",
            "{run_id}",
            "{x}",
            "${X}",
            "${X:-local}",
            "${",
            "",
            "1",
        ]
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4), st.sampled_from(["stacks", "plugins"]), ANYTHING)
def test_whatever_a_file_holds_is_either_wrong_or_gives_its_stacks(top: Any, form: str, stack: Any) -> None:
    top = {**top, form: {"a": stack} if form == "stacks" else stack}
    write(yaml.safe_dump(top))
    names = list_stacks("tailrace.yaml").names if "active_stack" not in top else ("local",)
    if validate_config():
        return
    for name in names:
        assert resolve_stack(name).name == name


# --- variables --------------------------------------------------------------------------------------------------------


def test_variables_are_filled_in_everywhere_in_the_used_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"KIND": "memory", "SPACE": "b", "FLAG": "true", "LEAST": "0.75", "EMPTY": "", "P": "p"}.items():
        monkeypatch.setenv(name, value)
    write(
        """
        project: {name: "${P}-${P}"}
        catalog: {url: "${URL:-sqlite:///x.db}"}
        active_stack: ${STAGE:-prod}
        stacks:
          prod:
            artifact_store: {type: "${KIND}", bucket: "${SPACE}${EMPTY}${EMPTY:-d}${NOT:-}"}
            artifact_stores: {disk: {type: local, durable: "${FLAG}"}}
            model_registry: {type: mlflow, tracking_uri: "$HOME {x}"}
            artifact_routing:
              Model: {store: "${KIND}", register: "${FLAG}", deploy_min_metrics: {f1: "${LEAST}"}}
              dict: {path: "${P}/{run_id}", on_error: "${NOT:-warn}"}
        """
    )
    stack = resolve_stack()
    assert (stack.name, stack.project, stack.catalog_url) == ("prod", "p-p", "sqlite:///x.db")
    assert stack.stores["default"].options == {"bucket": "bd"}
    assert stack.stores["disk"].options["durable"] is True
    assert stack.registry is not None
    assert stack.registry.options == {"tracking_uri": "$HOME {x}"}
    assert stack.rules["Model"] == Rule(store="default", register=True, deploy_min_metrics={"f1": 0.75})
    assert stack.rules["dict"] == Rule(path="p/{run_id}", on_error="warn")


def test_every_unset_variable_is_an_error_with_its_key() -> None:
    text = """
        project: {name: "${PROJECT}"}
        stacks:
          a:
            artifact_store: {type: local, path: "${ONE}/${TWO}", durable: "${THREE}"}
            allow_pickle: "${FOUR}"
            artifact_routing: {Model: {store: "${FIVE}"}}
    """
    rule = "tailrace.yaml @ stacks.a.artifact_routing.Model"
    assert [line.replace(" Set it, or give a default:", "") for line in problems(text, "a")] == [
        "The variable PROJECT is not set. ${PROJECT:-default} @ tailrace.yaml @ project.name (line 2)",
        "The variable ONE is not set. ${ONE:-default} @ tailrace.yaml @ stacks.a.artifact_store.path (line 5)",
        "The variable TWO is not set. ${TWO:-default} @ tailrace.yaml @ stacks.a.artifact_store.path (line 5)",
        "The variable THREE is not set. ${THREE:-default} @ tailrace.yaml @ stacks.a.artifact_store.durable (line 5)",
        "The variable FOUR is not set. ${FOUR:-default} @ tailrace.yaml @ stacks.a.allow_pickle (line 6)",
        f"The variable FIVE is not set. ${{FIVE:-default}} @ {rule}.store (line 7)",
    ]


def test_an_unset_active_stack_is_an_error_only_when_nobody_else_chooses() -> None:
    text = 'active_stack: "${STAGE}"\nstacks: {a: {}}'
    (found,) = problems(text)
    assert "The variable STAGE is not set" in found
    assert resolve_stack("a").name == "a"


@pytest.mark.parametrize("text", ["${", "${}", "${1X}", "${X:=y}", "${X-y}", "a ${X"])
def test_a_variable_that_is_written_wrongly_is_an_error(text: str) -> None:
    (found,) = problems(f'project: {{name: "{text}"}}')
    assert found.startswith("Write a variable as ${NAME} or ${NAME:-default} @ tailrace.yaml @ project.name")


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRET = "hunter2-s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        "plugins: {artifact_store: {type: '${S}'}}",
        "plugins: {artifact_store: {type: local, durable: '${S}'}}",
        "plugins: {allow_pickle: '${S}'}",
        "plugins: {artifact_routing: {Model: {store: '${S}'}}}",
        "plugins: {artifact_routing: {Model: {path: 'a b/${S}'}}}",
        "plugins: {artifact_routing: {Model: {path: '{${S}}'}}}",
        "plugins: {artifact_routing: {Model: {deploy_min_metrics: {f1: '${S}'}}}}",
        "project: {default_storage: 'ftp://me:${S}@host'}",
        "active_stack: '${S}'",
        "plugins: {artifact_store: {type: memory, bucket: '${S}', x: 1}, allow_pickle: '${S}'}",
    ],
)
def test_what_a_variable_held_is_in_no_error_nor_in_anything_that_hangs_on_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S", SECRET)
    write(text)
    with pytest.raises(ConfigError) as caught:
        resolve_stack()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(caught.value.problems)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in repr(chain)
        chain = chain.__cause__ or chain.__context__


def test_options_hold_what_a_variable_held_and_are_shown_as_written(
    plug_ins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S", SECRET)
    write(
        f"""
        catalog: {{url: "postgresql://me:${{S}}@db/x?password={SECRET}&sslmode=on"}}
        plugins:
          artifact_store:
            type: swift
            bucket: "${{S}}"
            secret_key: ${{S}}
            token: {SECRET}
            nested: {{api_key: {SECRET}, list: ["https://me:{SECRET}@host/x?X-Amz-Signature={SECRET}&sig={SECRET}&design=1"]}}
            password: "${{S:-{SECRET}}}"
          artifact_stores: {{disk: {{type: local, base_path: "${{S}}"}}}}
        """
    )
    stack = resolve_stack()
    options = stack.stores["default"].options
    assert (options["bucket"], options["secret_key"], options["token"]) == (SECRET, SECRET, SECRET)
    assert stack.stores["disk"].options["path"] == SECRET
    assert stack.stores["default"].shown == {
        "bucket": "${S}",
        "secret_key": "${S}",
        "token": "***",
        "nested": {"api_key": "***", "list": ["https://***@host/x?X-Amz-Signature=***&sig=***&design=1"]},
        "password": "***",
    }
    assert stack.stores["disk"].shown == {"base_path": "${S}", "durable": True}
    assert stack.catalog_url == f"postgresql://me:{SECRET}@db/x?password={SECRET}&sslmode=on"
    assert stack.catalog_shown == "postgresql://***@db/x?password=***&sslmode=on"
    assert SECRET not in repr(stack)


# --- files of the systems before --------------------------------------------------------------------------------------

PLUGINS_SEED = """
plugins:
  experiment_tracker: {type: mlflow, tracking_uri: "http://localhost:5000", experiment_name: "my_experiments"}
  artifact_store: {type: gcs, bucket: "my-ml-artifacts", prefix: experiments/, project: my-gcp-project}
  model_registry: {type: vertex_model_registry, project: "p", location: "us-central1"}
  model_deployer: {type: vertex_endpoint, project: "p"}
  orchestrator: {type: vertex_ai, project: p, location: us-central1, staging_bucket: "gs://staging"}
  artifact_routing:
    Model: {store: gcs, register: true, deploy: true, deploy_condition: manual, endpoint_name: production}
    Dataset: {store: gcs, path: "{run_id}/data/{step_name}"}
    Metrics: {log_to_tracker: true}
    default: {store: gcs}
"""

STACKS_SEED = """
stacks:
  local:
    orchestrator: {type: local}
    artifact_store: {type: local, path: "./artifacts"}
  gcp-prod:
    orchestrator: {type: vertex_ai, project: "${GCP_PROJECT}"}
    artifact_store: {type: gcs, bucket: ml-artifacts}
    artifact_stores:
      s3: {type: s3, bucket: archive}
    model_registry: {type: vertex_model_registry}
    model_deployer: {type: vertex_endpoint}
    experiment_tracker: {type: mlflow}
    artifact_routing:
      Model:
        store: gcs
        register: true
        deploy: true
        deploy_condition: auto
        deploy_min_metrics: {accuracy: 0.95, f1_score: 0.9}
      Dataset: {store: s3, path: "{run_id}/data/{step_name}"}
      Metrics: {log_to_tracker: true}
  aws-staging:
    orchestrator: {type: sagemaker, region: us-east-1}
    artifact_store: {type: s3, bucket: staging-ml}
    model_registry: {type: sagemaker_model_registry}
    model_deployer: {type: sagemaker_endpoint, role_arn: "${SAGEMAKER_ROLE}"}
    artifact_routing:
      Model: {store: s3, register: true}
      Dataset: {store: s3}
active_stack: local
"""

Golden = tuple[str, str | None, str | None, str | None, str, str]


def route(types: list[str], stack: Stack) -> Golden:
    found = decide(
        types,
        stack=stack,
        project=stack.project,
        pipeline="p",
        run_id="r",
        date="d",
        step="s",
        output="o",
        map_index=None,
    )
    return found.store, found.tracker, found.registry, found.deployer, found.gate, found.path


USUAL = "default/d/r/data/s/o"


def test_a_seeds_file_with_a_plugins_block_works_unchanged_when_it_is_named(plug_ins: None) -> None:
    stack = resolve_stack(config=write(PLUGINS_SEED, "flowyml.yaml"))
    assert (stack.name, stack.stores["default"].options["bucket"]) == ("default", "my-ml-artifacts")
    assert {
        kind: route([kind, "Asset"], stack) for kind in ("Model", "Dataset", "Metrics", "Parameters", "Report")
    } == {
        "Model": ("default", None, "vertex_model_registry", "vertex_endpoint", "manual", USUAL),
        "Dataset": ("default", None, None, None, "", "r/data/s/o"),
        "Metrics": ("default", "mlflow", None, None, "", USUAL),
        "Parameters": ("default", "mlflow", None, None, "", USUAL),
        "Report": ("default", None, None, None, "", USUAL),
    }


def test_a_seeds_file_with_stacks_works_unchanged_when_it_is_named(
    plug_ins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCP_PROJECT", "gp")
    path = write(STACKS_SEED, "flowyml.yaml")
    assert resolve_stack(config=path).stores["default"].options["path"] == "./artifacts"
    stack = resolve_stack("gcp-prod", config=path)
    assert stack.orchestrator.options == {"project": "gp"}
    assert {kind: route([kind, "Asset"], stack) for kind in ("Model", "Dataset", "Metrics")} == {
        "Model": (
            "default",
            None,
            "vertex_model_registry",
            "vertex_endpoint",
            "auto: accuracy >= 0.95, f1_score >= 0.9",
            USUAL,
        ),
        "Dataset": ("s3", None, None, None, "", "r/data/s/o"),
        "Metrics": ("default", "mlflow", None, None, "", USUAL),
    }
    with pytest.raises(ConfigError, match="The variable SAGEMAKER_ROLE is not set"):
        resolve_stack("aws-staging", config=path)


def test_a_seeds_file_is_not_found_unless_it_is_named() -> None:
    write(PLUGINS_SEED, "flowyml.yaml")
    assert resolve_stack().name == "local"


def test_without_the_plug_ins_each_missing_one_is_named_and_the_local_stack_works() -> None:
    path = write(STACKS_SEED, "flowyml.yaml")
    assert resolve_stack(config=path).name == "local"
    with pytest.raises(ConfigError) as caught:
        resolve_stack("gcp-prod", config=path)
    named = [problem.place for problem in caught.value.problems if problem.message.startswith("Nothing that is")]
    assert [place.split()[2].removeprefix("stacks.gcp-prod.") for place in named] == [
        "orchestrator.type",
        "model_registry.type",
        "model_deployer.type",
    ]


# --- the JSON Schema --------------------------------------------------------------------------------------------------

SHIPPED = Path(schema.__file__).with_name("tailrace.schema.json")


def conforms(text: str) -> bool:
    validator = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text(encoding="utf-8")))
    return bool(validator.is_valid(yaml.safe_load(text)))


def test_the_shipped_schema_is_that_of_the_models() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == json.dumps(schema.json_schema(), indent=2) + "\n", (
        "write it anew: tailrace stack schema > routing/tailrace.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        PLUGINS_SEED,
        STACKS_SEED,
        "stacks: {a: }",
        "plugins: {artifact_store: {type: local, base_path: x, durable: '${D:-true}'}}",
        "plugins: {allow_pickle: '${P}', artifact_routing: {pandas.DataFrame: {on_error: warn}, dict: }}",
        "plugins: {artifact_routing: {default: {register: '${R}', deploy_min_metrics: {f1: '${F}'}}}}",
    ],
)
def test_the_schema_accepts_what_is_accepted(text: str) -> None:
    assert conforms(text)


@pytest.mark.parametrize(
    "text",
    [
        WRONG,
        "version: 2",
        "stak: {}",
        "plugins: {artifact_store: {type: local, buckt: x}}",
        "plugins: {artifact_store: {path: x}}",
        "plugins: {experiment_tracker: {type: mlflow, uri: x}}",
        "plugins: {artifact_routing: {Modl: {}}}",
        "plugins: {artifact_routing: {Model: {on_error: wran}}}",
        "plugins: {artifact_routing: {Model: {deploy: maybe}}}",
        "plugins: {allow_pickle: sometimes}",
    ],
)
def test_the_schema_refuses_what_is_refused(text: str) -> None:
    assert not conforms(text)


def test_everything_that_can_be_written_is_described_for_editors() -> None:
    def undescribed(part: Any, path: str = "") -> Iterator[str]:
        for name, value in part.get("properties", {}).items():
            if name != "type" and "description" not in value and "$ref" not in json.dumps(value):
                yield f"{path}.{name}"

    whole = schema.json_schema()
    found = [*undescribed(whole), *(name for key, part in whole["$defs"].items() for name in undescribed(part, key))]
    assert found == []


def test_the_modules_that_others_import_need_no_library() -> None:
    for name in ("stacks", "rules", "templates", "variables"):
        source = Path(sys.modules["tailrace.routing.stacks"].__file__ or "").with_name(f"{name}.py").read_text()
        assert "import yaml" not in source
        assert "import pydantic" not in source
