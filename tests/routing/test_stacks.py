"""Which stack a run gets, and what a run has without any configuration."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from tailrace import ConfigError, use_stack
from tailrace.routing import stacks
from tailrace.routing.stacks import find_config, list_stacks, resolve_stack, set_active_stack

FILE = """
stacks:
  named: {}
  used: {}
  env: {}
  kept: {}
  active: {}
active_stack: active
"""


@pytest.fixture
def config(project: Path) -> Path:
    path = project / "tailrace.yaml"
    path.write_text(FILE)
    return path


# --- without a file ---------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_the_local_stack(project: Path) -> None:
    stack = resolve_stack()
    assert (stack.name, stack.project, stack.root, stack.source) == ("local", "default", project, None)
    assert (stack.orchestrator.type, stack.stores["default"].type) == ("local", "local")
    assert stack.stores["default"].options == {"path": ".tailrace/artifacts", "durable": True}
    assert (stack.tracker, stack.registry, stack.deployer, stack.rules) == (None, None, None, {})
    assert (stack.allow_pickle, stack.catalog_url) == ("never", None)


def test_without_a_file_neither_yaml_nor_pydantic_is_imported(project: Path) -> None:
    code = (
        "import sys; from tailrace.routing.stacks import resolve_stack; from tailrace.routing.rules import decide;"
        "resolve_stack(); print([name for name in ('yaml', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_file_another_stack_than_local_is_an_error_that_says_who_asked() -> None:
    with pytest.raises(ConfigError, match=r"There is no stack 'prod'\. Known: local\. @ the stack argument"):
        resolve_stack("prod")
    with use_stack("prod"), pytest.raises(ConfigError, match=r"@ use_stack\('prod'\)"):
        resolve_stack()


def test_the_working_directory_can_be_named(tmp_path: Path) -> None:
    assert resolve_stack(cwd=tmp_path).root == tmp_path


# --- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "chosen", "source"),
    [
        ({"named", "used", "env", "kept"}, "named", "argument"),
        ({"used", "env", "kept"}, "used", "use_stack"),
        ({"env", "kept"}, "env", "TAILRACE_STACK"),
        ({"kept"}, "kept", "tailrace stack set"),
        (set(), "active", "active_stack"),
        ({"no active"}, "local", "local"),
    ],
)
def test_the_strongest_choice_wins(
    config: Path, monkeypatch: pytest.MonkeyPatch, said: set[str], chosen: str, source: str
) -> None:
    if "no active" in said:
        config.write_text("stacks: {only: {}}")
    if "kept" in said:
        set_active_stack("kept")
    if "env" in said:
        monkeypatch.setenv("TAILRACE_STACK", "env")
    with use_stack("used") if "used" in said else nullcontext():
        stack = resolve_stack("named" if "named" in said else None)
        listed = list_stacks()
    assert stack.name == chosen
    if source != "argument":
        assert (listed.active.name, listed.active.source) == (chosen, source)


def test_a_blank_variable_chooses_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_STACK", " ")
    assert resolve_stack().name == "active"


@pytest.mark.parametrize("source", ["argument", "use_stack", "TAILRACE_STACK", ".tailrace/stack", "active_stack"])
def test_a_stack_that_does_not_exist_is_an_error_that_says_who_chose_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "TAILRACE_STACK":
        monkeypatch.setenv(source, "usde")
    if source == ".tailrace/stack":
        set_active_stack("used")
        config.write_text("stacks: {usee: {}}")
    if source == "active_stack":
        config.write_text(FILE.replace("stack: active", "stack: usde"))
    inside = use_stack("usde") if source == "use_stack" else nullcontext()
    with inside, pytest.raises(ConfigError, match="Did you mean 'use") as caught:
        resolve_stack("usde" if source == "argument" else None)
    assert source in caught.value.problems[-1].place
    assert len(caught.value.problems) == 1


def test_a_list_names_the_stacks_and_tells_of_a_choice_that_does_not_exist(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_STACK", "gone")
    listed = list_stacks()
    assert listed.names == ("named", "used", "env", "kept", "active", "local")
    assert (listed.active.name, listed.config) == ("gone", config)


def test_without_a_file_the_list_has_the_local_stack() -> None:
    assert list_stacks() == stacks.StackList(("local",), stacks.Choice("local", "local", "built-in"), None)


# --- use_stack --------------------------------------------------------------------------------------------------------


def test_use_stack_nests_and_restores(config: Path) -> None:
    with use_stack("used"):
        with use_stack("env"):
            assert resolve_stack().name == "env"
        assert resolve_stack().name == "used"
    assert resolve_stack().name == "active"


def test_use_stack_restores_when_the_block_raises(config: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), use_stack("used"):
        raise RuntimeError("stop")
    assert resolve_stack().name == "active"


def test_use_stack_decorates_a_function_and_each_call_enters_anew(config: Path) -> None:
    @use_stack("used")
    def chosen() -> str:
        return resolve_stack().name

    assert [chosen(), chosen(), resolve_stack().name] == ["used", "used", "active"]


def test_threads_do_not_see_each_others_stack(config: Path) -> None:
    inside, looked = threading.Barrier(2), threading.Barrier(2)
    seen: dict[str, str] = {}

    def work(name: str) -> None:
        with use_stack(name):
            inside.wait(10)
            seen[name] = resolve_stack().name
            looked.wait(10)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("used", "env")]
    with use_stack("kept"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        seen["main"] = resolve_stack().name
    assert seen == {"used": "used", "env": "env", "main": "kept"}


def test_async_tasks_do_not_see_each_others_stack(config: Path) -> None:
    async def work(name: str, together: asyncio.Barrier) -> str:
        with use_stack(name):
            await together.wait()
            seen = resolve_stack().name
            await together.wait()
            return seen

    async def both() -> list[str]:
        together = asyncio.Barrier(2)
        seen = await asyncio.gather(work("used", together), work("env", together))
        return [*seen, resolve_stack().name]

    assert asyncio.run(both()) == ["used", "env", "active"]


# --- stack set --------------------------------------------------------------------------------------------------------


def test_a_kept_choice_is_the_projects_and_is_replaced_by_the_next(config: Path, project: Path) -> None:
    below = project / "deep" / "er"
    below.mkdir(parents=True)
    assert set_active_stack("used", cwd=below) == project / ".tailrace" / "stack"
    assert set_active_stack("kept") == project / ".tailrace" / "stack"
    assert resolve_stack(cwd=below).name == "kept"
    assert os.listdir(project / ".tailrace") == ["stack"]


def test_choosing_a_stack_that_does_not_exist_changes_nothing(config: Path) -> None:
    set_active_stack("kept")
    with pytest.raises(ConfigError, match="Did you mean 'used'"):
        set_active_stack("usde")
    assert resolve_stack().name == "kept"


def test_a_choice_can_be_mended_while_the_old_one_cannot_be_used(config: Path) -> None:
    config.write_text(FILE.replace("stack: active", 'stack: "${STAGE}"'))
    set_active_stack("kept")
    assert resolve_stack().name == "kept"


def test_without_a_file_local_can_be_chosen(project: Path) -> None:
    assert set_active_stack("local") == project / ".tailrace" / "stack"
    with pytest.raises(ConfigError, match="There is no stack 'prod'"):
        set_active_stack("prod")


def test_a_choice_that_cannot_be_read_is_an_error(config: Path, project: Path) -> None:
    (project / ".tailrace" / "stack").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve_stack()


# --- which file -------------------------------------------------------------------------------------------------------


def test_the_file_is_the_one_named_else_the_variables_else_the_nearest_upward(
    config: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert find_config(cwd=below) == config
    (project / "other.yaml").write_text("")
    monkeypatch.setenv("TAILRACE_CONFIG", str(project / "other.yaml"))
    assert find_config(cwd=below) == project / "other.yaml"
    assert find_config("tailrace.yaml") == config
    nearer = project / "a" / "tailrace.yaml"
    nearer.write_text("")
    monkeypatch.delenv("TAILRACE_CONFIG")
    assert find_config(cwd=below) == nearer


def test_relative_paths_are_relative_to_the_files_folder(config: Path, project: Path) -> None:
    (project / "deep").mkdir()
    stack = resolve_stack(cwd=project / "deep")
    assert (stack.root, stack.source) == (project, config)


def test_a_named_file_that_does_not_exist_is_an_error_that_says_who_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: .*\n.*There is no such file @ the config argument"):
        resolve_stack(config="no.yaml")
    monkeypatch.setenv("TAILRACE_CONFIG", "gone.yaml")
    with pytest.raises(ConfigError, match=r"gone\.yaml: .*\n.*There is no such file @ TAILRACE_CONFIG"):
        resolve_stack()


# --- the default store ------------------------------------------------------------------------------------------------


def default_options(name: str | None = None) -> tuple[str, dict[str, object]]:
    store = resolve_stack(name).stores["default"]
    return store.type, dict(store.options)


STORED = """
project: {default_storage: "memory://shared"}
stacks:
  plain: {}
  own: {artifact_store: {type: local, path: mine}}
"""


def test_the_variable_beats_the_stack_beats_the_project(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(STORED)
    assert default_options("plain") == ("memory", {"bucket": "shared"})
    assert default_options("own") == ("local", {"path": "mine", "durable": True})
    assert default_options("local") == ("memory", {"bucket": "shared"})
    monkeypatch.setenv("TAILRACE_DEFAULT_STORAGE", "elsewhere")
    for name in ("plain", "own", "local"):
        assert default_options(name) == ("local", {"path": "elsewhere", "durable": True})


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("./out", "local", {"path": "./out", "durable": True}),
        ("~/out", "local", {"path": "~/out", "durable": True}),
        ("/srv/a b", "local", {"path": "/srv/a b", "durable": True}),
        ("file:///srv/a%20b", "local", {"path": "/srv/a b", "durable": True}),
        ("file://localhost/srv", "local", {"path": "/srv", "durable": True}),
        ("memory://", "memory", {"bucket": "default"}),
        ("memory://scratch/", "memory", {"bucket": "scratch"}),
        ("s3://rivers", "s3", {"bucket": "rivers", "prefix": ""}),
        ("s3://rivers/a%20b/c/", "s3", {"bucket": "rivers", "prefix": "a b/c"}),
        ("gs://lakes/x", "gcs", {"bucket": "lakes", "prefix": "x"}),
        ("az://seas/x", "azure", {"bucket": "seas", "prefix": "x"}),
    ],
)
def test_a_default_storage_is_a_path_or_a_uri(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: str, options: dict[str, object]
) -> None:
    monkeypatch.setenv("TAILRACE_DEFAULT_STORAGE", text)
    assert default_options() == (kind, options)


@pytest.mark.parametrize("text", ["ftp://me:secret@host/x", "file://host/share"])
def test_a_default_storage_of_nobody_is_an_error_without_its_password(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("TAILRACE_DEFAULT_STORAGE", text)
    with pytest.raises(ConfigError, match="TAILRACE_DEFAULT_STORAGE") as caught:
        resolve_stack()
    assert "secret" not in str(caught.value)


def test_a_store_that_the_variable_replaces_keeps_its_name_in_rules(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("plugins: {artifact_store: {type: memory}, artifact_routing: {Model: {store: memory}}}")
    monkeypatch.setenv("TAILRACE_DEFAULT_STORAGE", "./here")
    assert resolve_stack().rules["Model"].store == "default"


# --- one table of what is built in ------------------------------------------------------------------------------------


def orchestrators() -> set[str]:
    from tailrace.adapters.local import ORCHESTRATORS

    return set(ORCHESTRATORS)


def stores() -> set[str]:
    from tailrace.stores.build import STORES

    return set(STORES)


def trackers() -> set[str]:
    from tailrace.routing.trackers import TRACKERS

    return set(TRACKERS)


def registries() -> set[str]:
    from tailrace.routing.registries import REGISTRIES

    return set(REGISTRIES)


@pytest.mark.parametrize(
    ("kind", "provided"),
    [("orchestrator", orchestrators), ("store", stores), ("tracker", trackers), ("registry", registries)],
)
def test_the_types_that_the_configuration_knows_are_those_that_can_be_built(
    kind: str, provided: Callable[[], set[str]]
) -> None:
    assert set(stacks.BUILT_IN[kind]) == provided()
