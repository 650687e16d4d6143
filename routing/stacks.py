"""Stacks: which destinations a run has, and which stack a run gets.

Importing this costs nothing, and neither does resolving without a ``tailrace.yaml``; reading one is the business of
``config.py``, which imports the libraries for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, Problem, did_you_mean
from .variables import mask

__all__ = [
    "Choice",
    "Component",
    "Rule",
    "Stack",
    "StackList",
    "find_config",
    "list_stacks",
    "resolve_stack",
    "set_active_stack",
    "use_stack",
    "validate_config",
]

CONFIG_NAME = "tailrace.yaml"
DEFAULT = "default"  # the store without a name, the rule for all types, and the stack of a `plugins:` block
LOCAL = "local"  # the stack that is always there
LOCAL_PATH = ".tailrace/artifacts"

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "orchestrator": ("local", "inline", "airflow"),
    "store": ("local", "memory", "s3", "gcs", "azure"),
    "tracker": ("mlflow",),
    "registry": ("mlflow",),
    "deployer": (),
}
"""The component types that come with Tailrace; others come through the entry points named here."""
KEEPS_PROMPTS = ("mlflow",)
"""The types of trackers and registries that keep versions of prompts, and get every Prompt."""
_BUCKETS = {"s3": "s3", "gs": "gcs", "az": "azure"}
_SCHEMES = {"memory": "memory", **_BUCKETS}
GROUPS: Mapping[str, str] = {
    "orchestrator": "tailrace.orchestrators",
    "store": "tailrace.stores",
    "tracker": "tailrace.trackers",
    "registry": "tailrace.registries",
    "deployer": "tailrace.deployers",
}


@dataclass(frozen=True)
class Component:
    """One part of a stack: its type and options. ``place`` says where it was written, for errors.

    ``options`` have their variables expanded, so they may hold secrets and are in no repr; ``shown`` is for people:
    the options as they were written, with passwords masked.
    """

    type: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    place: str = "built-in"
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """What one entry of ``artifact_routing`` says; ``None``, and no thresholds, where it says nothing."""

    store: str | None = None
    path: str | None = None
    register: bool | None = None
    deploy: bool | None = None
    deploy_condition: str | None = None
    deploy_min_metrics: Mapping[str, float] = field(default_factory=dict)
    endpoint_name: str | None = None
    log_to_tracker: bool | None = None
    on_error: str | None = None
    format: str | None = None
    compression: str | None = None


@dataclass(frozen=True)
class Stack:
    """Everything that a run needs to know of its destinations.

    ``root`` is the folder that relative paths are relative to: the config file's (``source``), else the working
    directory. ``stores`` always has ``default``. ``rules`` are keyed by type name, or ``default``; the stores they name
    are in ``stores``. ``catalog_url`` is ``None`` for SQLite below the root; it may hold a password, and
    ``catalog_shown`` does not.
    """

    name: str
    project: str
    root: Path
    source: Path | None
    orchestrator: Component
    stores: Mapping[str, Component]
    tracker: Component | None = None
    registry: Component | None = None
    deployer: Component | None = None
    rules: Mapping[str, Rule] = field(default_factory=dict)
    allow_pickle: str = "never"
    catalog_url: str | None = field(default=None, repr=False)
    catalog_shown: str | None = None

    @property
    def prompt_registry(self) -> Component | None:
        """What keeps the versions of prompts: the registry, or else the tracker, if it is of a type that does.

        Where neither is, it is the registry: a plug-in's gets those prompts that a rule registers.
        """
        if self.registry and self.registry.type in KEEPS_PROMPTS:
            return self.registry
        if self.tracker and self.tracker.type in KEEPS_PROMPTS:
            return Component(self.tracker.type, place=self.tracker.place)
        return self.registry


@dataclass(frozen=True)
class Choice:
    """The stack that a run would get, and why.

    ``source`` is ``argument``, ``use_stack``, ``TAILRACE_STACK``, ``tailrace stack set``, ``active_stack`` or
    ``local``; ``place`` is where that was said.
    """

    name: str
    source: str
    place: str


@dataclass(frozen=True)
class StackList:
    """The stacks there are, and the one that a run would get; its name is not in ``names`` if it does not exist."""

    names: tuple[str, ...]
    active: Choice
    config: Path | None


# --- which stack ------------------------------------------------------------------------------------------------------

_used: ContextVar[str | None] = ContextVar("tailrace_stack", default=None)


@contextmanager
def use_stack(name: str) -> Iterator[None]:
    """Runs that start inside the block use the stack, unless they name another. Also a decorator of a function.

    It nests, ends with the block whether or not that raises, and holds for this thread or async task only. The stack
    is looked up when a run starts: a name that does not exist is an error then.
    """
    token = _used.set(name)
    try:
        yield
    finally:
        _used.reset(token)


def find_config(config: str | Path | None = None, cwd: Path | None = None) -> Path | None:
    """The config file: the one named, else ``TAILRACE_CONFIG``, else the nearest ``tailrace.yaml`` upward, if any.

    Raises :class:`~tailrace.ConfigError` where a file is named and does not exist.
    """
    here = _here(cwd)
    named = config or os.environ.get("TAILRACE_CONFIG")
    if named:
        path = here / Path(named).expanduser()
        if not path.exists():
            place = "the config argument" if config else "TAILRACE_CONFIG"
            raise ConfigError(str(path), [Problem("There is no such file", place)])
        return path
    paths = (folder / CONFIG_NAME for folder in (here, *here.parents))
    return next((path for path in paths if os.path.lexists(path)), None)


def resolve_stack(name: str | None = None, config: str | Path | None = None, cwd: Path | None = None) -> Stack:
    """The stack that a run starting now gets, whole and checked.

    Strongest first: ``name``, :func:`use_stack`, ``TAILRACE_STACK``, ``tailrace stack set``, ``active_stack`` of the
    file, the built-in stack ``local``: this machine, below ``.tailrace``. Raises :class:`~tailrace.ConfigError` with
    everything that is wrong with the file and the stack.
    """
    source = find_config(config, cwd)
    if source is None:
        root = _here(cwd)
        choice = _choose(name, root)
        if choice.name != LOCAL:
            raise ConfigError(
                f"no {CONFIG_NAME} in {root} or above", [Problem(no_stack(choice.name, (LOCAL,)), choice.place)]
            )
        return Stack(LOCAL, "default", root, None, Component("local"), {DEFAULT: default_store(None)})
    from .config import ConfigFile

    file = ConfigFile.read(source)
    choice = _choose(name, source.parent, file.active)
    return file.stack(choice)


def list_stacks(config: str | Path | None = None, cwd: Path | None = None) -> StackList:
    """The names of the stacks, and which of them a run would get now and why."""
    source = find_config(config, cwd)
    if source is None:
        return StackList((LOCAL,), _choose(None, _here(cwd)), None)
    from .config import ConfigFile

    file = ConfigFile.read(source)
    return StackList(file.names(), _choose(None, source.parent, file.active), source)


def set_active_stack(name: str, config: str | Path | None = None, cwd: Path | None = None) -> Path:
    """Choose the stack of this project from now on; returns the file that remembers it, ``.tailrace/stack``.

    Raises :class:`~tailrace.ConfigError` for a stack that does not exist; the choice before stays then.
    """
    source = find_config(config, cwd)
    names: tuple[str, ...] = (LOCAL,)
    if source is not None:
        from .config import ConfigFile

        names = ConfigFile.read(source).names()
    if name not in names:
        raise ConfigError(str(source or _here(cwd)), [Problem(no_stack(name, names), "tailrace stack set")])
    path = _choice_file(source.parent if source else _here(cwd))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"stack.{os.getpid()}")
    aside.write_text(f"{name}\n", encoding="utf-8")
    os.replace(aside, path)
    return path


def validate_config(config: str | Path | None = None, cwd: Path | None = None) -> tuple[Problem, ...]:
    """Everything that is wrong with the config file, in all its stacks; nothing if it is sound, or if there is none."""
    try:
        source = find_config(config, cwd)
        if source is None:
            return ()
        from .config import ConfigFile

        return ConfigFile.read(source).problems()
    except ConfigError as error:
        return error.problems


def _here(cwd: Path | None) -> Path:
    return Path(cwd or Path.cwd()).absolute()


def _choice_file(root: Path) -> Path:
    return root / ".tailrace" / "stack"


def _choose(name: str | None, root: Path, active: Callable[[], Choice | None] = lambda: None) -> Choice:
    if name is not None:
        return Choice(name, "argument", "the stack argument")
    if (used := _used.get()) is not None:
        return Choice(used, "use_stack", f"use_stack({used!r})")
    if named := os.environ.get("TAILRACE_STACK", "").strip():
        return Choice(named, "TAILRACE_STACK", "TAILRACE_STACK")
    path = _choice_file(root)
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Problem(f"It cannot be read: {error}", "tailrace stack set")]) from error
    if kept:
        return Choice(kept, "tailrace stack set", str(path))
    return active() or Choice(LOCAL, "local", "built-in")


def no_stack(name: str, names: tuple[str, ...]) -> str:
    """The message for a stack that does not exist."""
    return f"There is no stack {name!r}.{did_you_mean(name, names)}"


# --- components -------------------------------------------------------------------------------------------------------


def check_type(kind: str, name: str, shown: str | None = None) -> str | None:
    """What is wrong with a component type, if nothing provides it. ``shown`` is what to call it."""
    if name in BUILT_IN[kind]:
        return None
    from ..core.plugins import entry_points

    plugged = entry_points(GROUPS[kind])
    if name in plugged:
        return None
    known = did_you_mean(name, {*BUILT_IN[kind], *plugged})
    return (
        f"Nothing that is installed provides the {kind} type {shown or repr(name)}.{known}"
        f" A plug-in provides one through the entry point group {GROUPS[kind]!r}."
    )


def default_store(written: Component | None, fallback: Component | None = None) -> Component:
    """The default store: ``TAILRACE_DEFAULT_STORAGE``, else the stack's, else the project's, else a folder here."""
    if named := os.environ.get("TAILRACE_DEFAULT_STORAGE", "").strip():
        return storage(named, "TAILRACE_DEFAULT_STORAGE", named)
    return written or fallback or storage(LOCAL_PATH, "built-in", LOCAL_PATH)


def storage_type(text: str) -> str:
    """The type of the store that a path or URI names."""
    return _SCHEMES.get(text.partition("://")[0], LOCAL) if "://" in text else LOCAL


def storage(text: str, place: str, written: str) -> Component:
    """The store that a path or URI names; ``written`` is the text before variables were expanded.

    Raises :class:`~tailrace.ConfigError` for a URI of another scheme, or of another machine's folder.
    """
    from urllib.parse import unquote, urlsplit

    from ..stores.build import in_bucket

    kind, shown = storage_type(text), {"uri": mask(written)}
    if kind != LOCAL:
        return Component(kind, in_bucket(text), place, shown)
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
            known = ", ".join(
                ["a path", "file:///path", "memory://name", *(f"{name}://bucket/prefix" for name in _BUCKETS)]
            )
            message = f"No store is known for {mask(written)!r}. Known: {known}"
            raise ConfigError("default storage", [Problem(message, place)])
        text = unquote(parts.path)
    return Component(kind, {"path": text, "durable": True}, place, shown)
