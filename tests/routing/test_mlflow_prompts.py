"""Prompts in MLflow's registry: one version for each artifact, which renders to what the prompt renders to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tailrace import Prompt, pipeline, step
from tailrace.core.errors import DestinationError, StepFailed
from tailrace.core.plugins import entry_points
from tailrace.core.refs import ArtifactRef, Manifest
from tailrace.core.results import RunResult
from tailrace.routing.registries.base import PromptRegistry
from tailrace.routing.registries.mlflow import MlflowRegistry

from .artifacts import a_run, artifact, at_once

pytestmark = pytest.mark.usefixtures("nothing_outside")

GREETING = Prompt("Hello {name}, {{name}}!")


def a_prompt(root: Path, **about: Any) -> tuple[ArtifactRef, Manifest]:
    ref, manifest = artifact(root, **{"name": "greeting", **about})
    return replace(ref, type="Prompt"), replace(manifest, type="Prompt")


def versions(root: Path, name: str = "greeting") -> dict[int, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db")
    found = client.search_prompt_versions(name) if client.get_prompt(name) else []
    return {int(version.version): version for version in found}


@pytest.fixture
def registry(root: Path) -> MlflowRegistry:
    return MlflowRegistry(root=root)


# --- the registry -----------------------------------------------------------------------------------------------------


def test_it_keeps_prompts(registry: MlflowRegistry) -> None:
    assert isinstance(registry, PromptRegistry)


@pytest.mark.parametrize(
    "prompt",
    [
        GREETING,
        Prompt("{{ jinja }} and {name}\n"),
        Prompt(""),
        Prompt([{"role": "system", "content": "Be kind to {name}."}, {"role": "user", "content": '{"é": {{name}}}'}]),
        Prompt([{"role": "user", "content": "{% x %} {name}"}]),
    ],
)
def test_what_mlflow_loads_renders_as_the_prompt(
    registry: MlflowRegistry, root: Path, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    ref, manifest = a_prompt(root)
    assert registry.register_prompt(prompt, ref, manifest, run=a_run(root)) == ("greeting", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/.tailrace/mlflow.db")
    loaded = mlflow.genai.load_prompt("prompts:/greeting/1")
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt"):  # it writes to the database
            thread.join()
    assert loaded.format(name="Eve") == prompt.render(name="Eve")
    assert loaded.is_text_prompt == isinstance(prompt.data, str)


def test_a_version_of_a_prompt_says_where_it_comes_from(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = a_prompt(root, tags={"team": "risk"})
    registry.register_prompt(GREETING, ref, manifest, run=a_run(root))
    [version] = versions(root).values()
    assert version.tags["tailrace.key"].startswith("a1-blake3-000")
    assert version.tags == {
        "tailrace.key": version.tags["tailrace.key"],
        "team": "risk",
        "tailrace.artifact_id": "a1",
        "tailrace.digest": ref.digest,
        "tailrace.uri": ref.uri,
        "tailrace.run_id": "r1",
        "tailrace.pipeline": "train",
        "tailrace.version": "v1.2",
    }


def test_registering_a_prompt_again_finds_the_version(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = a_prompt(root)
    for each in (registry, registry, MlflowRegistry(root=root)):
        assert each.register_prompt(GREETING, ref, manifest, run=a_run(root)) == ("greeting", "1")
    assert set(versions(root)) == {1}


def test_other_content_and_another_prompt_are_other_versions(registry: MlflowRegistry, root: Path) -> None:
    for expected, about in [("1", {}), ("2", {"content": "1" * 64}), ("3", {"artifact_id": "a2"}), ("1", {})]:
        ref, manifest = a_prompt(root, **about)
        assert registry.register_prompt(GREETING, ref, manifest, run=a_run(root)) == ("greeting", expected)


def test_a_version_of_a_prompt_that_a_user_deleted_is_registered_anew(registry: MlflowRegistry, root: Path) -> None:
    from mlflow import MlflowClient

    ref, manifest = a_prompt(root)
    registry.register_prompt(GREETING, ref, manifest, run=a_run(root))
    MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db").delete_prompt_version("greeting", "1")
    registry.register_prompt(GREETING, ref, manifest, run=a_run(root))
    assert len(versions(root)) == 1


def test_a_prompt_left_without_a_version_gets_one(registry: MlflowRegistry, root: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db").create_prompt("greeting")
    ref, manifest = a_prompt(root)
    assert registry.register_prompt(GREETING, ref, manifest, run=a_run(root)) == ("greeting", "1")


def test_a_duplicate_of_a_prompts_version_is_deleted(registry: MlflowRegistry, root: Path) -> None:
    from mlflow import MlflowClient

    ref, manifest = a_prompt(root)
    registry.register_prompt(GREETING, ref, manifest, run=a_run(root))
    [first] = versions(root).values()
    client = MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db")
    client.create_prompt_version("greeting", first.template, tags=first.tags)
    assert set(versions(root)) == {1, 2}
    assert registry.register_prompt(GREETING, ref, manifest, run=a_run(root)) == ("greeting", "1")
    assert set(versions(root)) == {1}


def test_processes_that_register_a_prompt_at_once_leave_one_version(root: Path) -> None:
    ref, manifest = a_prompt(root)
    ended = at_once(root, ref, manifest, "register_prompt(Prompt('Hello {name}'), ref, manifest, run=run)")
    [(version, found)] = versions(root).items()
    assert found.template == "Hello {{name}}"
    assert ended == {f"greeting {version}\n"}


@pytest.mark.parametrize("name", ["team/greeting", "greeting:v1", "my greeting", "grüße", "greeting\n"])
def test_a_prompts_name_that_mlflow_does_not_take_is_an_error_that_says_what_to_do(
    registry: MlflowRegistry, root: Path, name: str
) -> None:
    ref, manifest = a_prompt(root, name=name)
    with pytest.raises(
        DestinationError, match=r"takes names of prompts .* another name, or set register: false"
    ) as caught:
        registry.register_prompt(GREETING, ref, manifest, run=a_run(root))
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (Prompt("{self}"), r"would not render the prompt 'greeting', .* no variable of the name 'self'\. Change that"),
        (Prompt("x" * 100_001), "exceeds max length of 100000 characters"),
    ],
)
def test_a_prompt_that_mlflow_cannot_hold_is_an_error(
    registry: MlflowRegistry, root: Path, prompt: Prompt, why: str
) -> None:
    ref, manifest = a_prompt(root)
    with pytest.raises(DestinationError, match=why):
        registry.register_prompt(prompt, ref, manifest, run=a_run(root))
    assert versions(root) == {}


def test_a_prompt_and_a_model_do_not_share_a_name(registry: MlflowRegistry, root: Path) -> None:
    taken = r"already taken by a (registered model|prompt)"
    model, prompt = artifact(root, name="one"), a_prompt(root, name="one", artifact_id="a2")
    registry.register(*model, run=a_run(root))
    with pytest.raises(DestinationError, match=taken):
        registry.register_prompt(GREETING, *prompt, run=a_run(root))

    model, prompt = artifact(root, name="two"), a_prompt(root, name="two", artifact_id="a2")
    registry.register_prompt(GREETING, *prompt, run=a_run(root))
    with pytest.raises(DestinationError, match=taken):
        registry.register(*model, run=a_run(root))
    assert set(versions(root, "two")) == {1}


# --- runs -------------------------------------------------------------------------------------------------------------

TRACKER = "experiment_tracker: {type: mlflow}"
REGISTRY = "model_registry: {type: mlflow}"


@pytest.fixture
def project(root: Path, nothing_outside: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    return root


class Polite(Prompt):
    pass


def greet(
    text: str, *parts: str, rules: str = "{}", run_id: str = "r1", kind: type[Prompt] = Prompt, cache: bool = False
) -> RunResult:
    """Run a pipeline that returns a prompt, on a stack of these parts."""
    lines = ["orchestrator: {type: inline}", *parts, f"artifact_routing: {rules}"]
    Path("tailrace.yaml").write_text("plugins:\n" + "".join(f"  {line}\n" for line in lines))

    @step(cache=cache)
    def write(text: str) -> Prompt:
        return kind(text, name="greeting")

    @pipeline
    def greetings(text: str) -> None:
        write(text)

    return greetings.run({"text": text}, run_id=run_id)


def registered(result: RunResult) -> str | None:
    (task,) = result.steps["write"].tasks
    (destinations,) = task.destinations.values()
    return destinations.get("registry")


@pytest.mark.parametrize("parts", [[TRACKER], [REGISTRY], [TRACKER, REGISTRY]])
def test_a_prompt_is_registered_once_where_the_registry_or_the_tracker_is_mlflow(
    project: Path, parts: list[str]
) -> None:
    for _ in range(2):
        assert registered(greet("Hello {name}", *parts)) == "mlflow:greeting/1"
    [version] = versions(project).values()
    assert version.template == "Hello {{name}}"
    assert registered(greet("Good morning, {name}", *parts, run_id="r2")) == "mlflow:greeting/2"


def test_a_prompt_is_in_the_mlflow_of_the_tracker(project: Path) -> None:
    (project / ".tailrace" / "mlflow.db").rename(project / ".tailrace" / "other.db")
    greet("Hello", 'experiment_tracker: {type: mlflow, tracking_uri: "sqlite:///.tailrace/other.db"}')
    (project / ".tailrace" / "other.db").rename(project / ".tailrace" / "mlflow.db")
    assert set(versions(project)) == {1}


PLUG_IN = """
class ForModels:
    name = "models_only"
    def __init__(self, *, root):
        pass
    def register(self, ref, manifest, *, run, tracker_run=None):
        return manifest.name, "1"
    def registered(self):
        return ()
"""


@pytest.fixture
def models_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry of another package, which keeps no prompts."""
    info = tmp_path / "site" / "for_models-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: for_models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tailrace.registries]\nmodels_only = for_models:ForModels\n")
    (info.parent / "for_models.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(info.parent))
    entry_points.cache_clear()
    yield "model_registry: {type: models_only}"
    entry_points.cache_clear()


def test_a_registry_that_keeps_no_prompts_gets_none_unless_a_rule_says_so(project: Path, models_only: str) -> None:
    assert registered(greet("Hello", models_only)) is None
    with pytest.raises(StepFailed, match=r"'models_only' keeps no prompts such as 'greeting'\. Set register: false"):
        greet("Hello", models_only, rules="{Prompt: {register: true}}")
    assert registered(greet("Hello", models_only, TRACKER)) == "mlflow:greeting/1"


def test_a_prompt_without_mlflow_is_in_the_store_only(project: Path) -> None:
    assert registered(greet("{self} in {any} words")) is None


def test_a_rule_keeps_prompts_out_of_the_registry(project: Path) -> None:
    assert registered(greet("Hello", REGISTRY, rules="{Prompt: {register: false}}")) is None
    assert versions(project) == {}


def test_a_prompt_that_mlflow_refuses_fails_the_step_and_is_stored_all_the_same(project: Path) -> None:
    with pytest.raises(StepFailed, match="no variable of the name 'self'"):
        greet("{self}", TRACKER)
    with pytest.warns(UserWarning, match="no variable of the name 'self'"):
        result = greet("{self}", TRACKER, rules="{Prompt: {on_error: warn}}")
    assert (registered(result) or "").startswith("failed: ")


def test_a_step_that_died_after_registering_registers_nothing_more(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = MlflowRegistry.register_prompt

    def dies(self: MlflowRegistry, *args: Any, **kwargs: Any) -> tuple[str, str]:
        raise DestinationError(f"lost the answer {register(self, *args, **kwargs)}")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowRegistry, "register_prompt", dies)
        with pytest.raises(StepFailed, match=r"lost the answer \('greeting', '1'\)"):
            greet("Hello {name}", TRACKER)
    assert registered(greet("Hello {name}", TRACKER)) == "mlflow:greeting/1"
    assert set(versions(project)) == {1}


def test_a_prompt_from_the_step_cache_is_registered_for_its_own_run(project: Path) -> None:
    for version in ("1", "2"):
        result = greet("Hello {name}", REGISTRY, kind=Polite, cache=True, run_id=f"r{version}")
        assert result.steps["write"].cached == (version == "2")
        assert registered(result) == f"mlflow:greeting/{version}"
    assert {found.template for found in versions(project).values()} == {"Hello {{name}}"}
