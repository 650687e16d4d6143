"""The router: performs what the rules decided. Stores every output, then tracks and registers what is to be.

Everything here may be repeated: after a crash between two destinations the same call finishes what is missing and
does nothing twice.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..catalog.journal import Journal
from ..core.annotations import asset_type
from ..core.assets import Asset
from ..core.errors import DestinationError, InvalidKey, MaterializationError, TailraceError
from ..core.forms import Form
from ..core.refs import ArtifactRef, Manifest, Parent, Producer, Route, Run, artifact_id
from ..core.typenames import routing_names, type_name
from ..stores.base import ArtifactStore, Labels, Staged
from ..stores.build import build_store
from .registries import PromptRegistry, Registry, build_registry
from .rules import decide
from .stacks import Stack
from .trackers import Tracker, build_tracker

if TYPE_CHECKING:
    from .cache.entries import Tier

__all__ = ["Committed", "Copy", "CopyFailed", "Router", "Task", "as_declared"]


@dataclass(frozen=True, slots=True)
class Task:
    """One execution of a node, as far as its artifacts are concerned: who makes them, and from what."""

    run: Run
    step: str
    code_version: str
    plan_version: str
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """An output that is another artifact as it is: its files are copied, and no value is loaded.

    ``names`` are those by which its type is routed. With ``store`` it is what an earlier run made and the step cache
    kept, in that store: then everything that the artifact's manifest says of it stays.
    """

    ref: ArtifactRef
    names: tuple[str, ...]
    store: ArtifactStore | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """One output that is where it belongs: its reference, its times in seconds, and what each destination calls it.

    ``names`` are those by which its type was routed.
    """

    ref: ArtifactRef
    timings: Mapping[str, float]
    destinations: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()


class CopyFailed(TailraceError):
    """What the step cache kept cannot be read any more: it is gone, damaged, or out of reach."""


@dataclass(frozen=True, slots=True)
class _Value:
    """One output as it is stored: its names for the rules, whether it was returned bare, its tags, its own parents."""

    value: Any
    names: tuple[str, ...]
    bare: bool
    tags: Mapping[str, str]
    parents: tuple[Parent, ...]


class Router:
    """The destinations of one stack, opened when they are first needed. One per process and run."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._stores: dict[str, ArtifactStore] = {}
        self._tracker: Tracker | None = None
        self._tracker_runs: dict[str, str] = {}

    # --- destinations -------------------------------------------------------------------------------------------------

    def store(self, name: str = "default") -> ArtifactStore:
        """A store of the stack."""
        if name not in self._stores:
            component = self.stack.stores[name]
            self._stores[name] = build_store(
                component.type, component.options, name=name, root=self.stack.root, allow_pickle=self.stack.allow_pickle
            )
        return self._stores[name]

    def store_of(self, uri: str) -> ArtifactStore:
        """The store of the stack that holds a URI; refuses one that none does."""
        for name in self.stack.stores:
            store = self.store(name)
            if uri.startswith(f"{store.root_uri}/"):
                return store
        roots = ", ".join(f"{name} ({self.store(name).root_uri})" for name in self.stack.stores)
        raise InvalidKey(f"{uri!r} is in no store of the stack {self.stack.name!r}, which has {roots}.")

    @property
    def tracker(self) -> Tracker | None:
        """The experiment tracker, if the stack has one."""
        if self._tracker is None and self.stack.tracker is not None:
            self._tracker = build_tracker(self.stack)
        return self._tracker

    @functools.cached_property
    def registry(self) -> Registry | None:
        """The model registry, if the stack has one."""
        return build_registry(self.stack, self.stack.registry)

    @functools.cached_property
    def prompt_registry(self) -> Registry | None:
        """What gets prompts, if the stack has it: the model registry, or that of the tracker."""
        keeper = self.stack.prompt_registry
        return self.registry if keeper is self.stack.registry else build_registry(self.stack, keeper)

    def tracker_run(self, run: Run) -> str | None:
        """The tracker's run for this run, found or made; None where there is no tracker."""
        if self.tracker is None:
            return None
        if run.run_id not in self._tracker_runs:
            journal = Journal.of(self.store(), run)
            self._tracker_runs[run.run_id] = self.tracker.open_run(run, journal)
        return self._tracker_runs[run.run_id]

    @functools.cached_property
    def caches(self) -> tuple[Tier, ...]:
        """The step caches, the nearest first: this project's, and the shared one where there is one."""
        from .cache.entries import tiers

        return tiers(self.stack.root, self.stack.name)

    def tracker_url(self, run: Run) -> str:
        """Where the tracker shows the run, if it has been asked for it; else ``""``, since asking takes seconds."""
        tracker_run = self._tracker_runs.get(run.run_id)
        return self.tracker.describe(tracker_run) if self.tracker is not None and tracker_run else ""

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, ref: ArtifactRef, columns: Sequence[Any] | None = None) -> tuple[Any, Manifest]:
        """The value behind a reference, or these columns of a table, verified, and its manifest."""
        return self.store_of(ref.uri).load_with_manifest(ref, columns)

    # --- deciding -----------------------------------------------------------------------------------------------------

    def route(self, task: Task, output: str, kind: Any) -> Route:
        """Where an output of this type goes."""
        return self._route(task, output, routing_names(kind))

    def _route(self, task: Task, output: str, names: Sequence[str]) -> Route:
        run = task.run
        return decide(
            list(names),
            stack=self.stack,
            project=run.project,
            pipeline=run.pipeline,
            run_id=run.run_id,
            date=run.date,
            step=task.step,
            output=output,
            map_index=run.map_index,
        )

    # --- performing ---------------------------------------------------------------------------------------------------

    def commit(
        self,
        task: Task,
        values: Mapping[str, Any],
        declared: Mapping[str, Any],
        *,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Committed]:
        """Store, track and register a task's outputs, values or :class:`Copy`.

        ``declared`` are their annotations, ``tags`` are added to each.

        All are written aside before any is published, so that an output that cannot be stored leaves nothing of the
        others. Raises :class:`~tailrace.MaterializationError` naming step and output,
        :class:`~tailrace.DestinationError` for a tracker or registry that refuses, and :class:`CopyFailed` for what the
        step cache kept and cannot give back.
        """
        staged: dict[str, tuple[Route, _Value, Staged]] = {}
        try:
            for output, returned in values.items():
                value = _described(returned, declared.get(output), task.step, output, tags or {})
                route = self._route(task, output, value.names)
                staged[output] = (route, value, self._stage(route, value.value, task, output))
            stored = {
                output: (route, value, *self._publish(route, written, _labels(task, output, value)))
                for output, (route, value, written) in staged.items()
            }
        except BaseException:
            for route, _, written in staged.values():
                self.store(route.store).discard_staging(written.directory)  # what was published is no longer there
            raise
        return {output: self._deliver(task, *parts) for output, parts in stored.items()}

    def _publish(self, route: Route, written: Staged, labels: Labels) -> tuple[ArtifactRef, dict[str, float]]:
        begin = time.perf_counter()
        ref = self.store(route.store).publish(written, route.path, labels)
        return ref, {
            "bytes": sum(entry.size for entry in written.files),
            "save": written.seconds,
            "digest": written.digest_seconds,
            "publish": time.perf_counter() - begin,
        }

    def _stage(self, route: Route, value: Any, task: Task, output: str) -> Staged:
        store = self.store(route.store)
        if isinstance(value, Copy):
            with _copying(value):
                source = value.store or self.store_of(value.ref.uri)
                files, manifest = source.reader(value.ref)
                try:
                    return store.stage_copy(files, manifest)
                finally:
                    source.release_tree(files.directory)
        try:
            return store.stage(value, Form(route.format, route.compression))
        except MaterializationError as error:
            error.args = (f"The step {task.step!r} returned an output {output!r} that cannot be stored: {error}",)
            raise

    def _deliver(
        self, task: Task, route: Route, value: _Value, ref: ArtifactRef, timings: dict[str, float]
    ) -> Committed:
        done = {"store": ref.uri}
        begin = time.perf_counter()
        if route.tracker:
            done["tracker"] = self._attempt(route, lambda: self._track(task, self._told(value, ref), ref))
        if route.registry:
            done["registry"] = self._attempt(route, lambda: self._register(task, value, ref))
        if len(done) > 1:
            timings["deliver"] = time.perf_counter() - begin
        return Committed(ref, timings, done, value.names)

    def _told(self, value: _Value, ref: ArtifactRef) -> Any:
        """The value; of a copy only where trackers and registries are told it, since these are small."""
        small = not {"Metrics", "Parameters", "Prompt"}.isdisjoint(value.names)
        return self.load(ref)[0] if isinstance(value.value, Copy) and small else value.value

    def _attempt(self, route: Route, deliver: Callable[[], str]) -> str:
        """What the destination calls the artifact; with ``on_error: warn`` a refusal is a warning, and recorded."""
        try:
            return deliver()
        except DestinationError as error:
            if route.on_error != "warn":
                raise
            warnings.warn(f"{error} (on_error: warn, so the run goes on)", stacklevel=2)
            return f"failed: {error}"

    def _track(self, task: Task, value: Any, ref: ArtifactRef) -> str:
        tracker, tracker_run = self.tracker, self.tracker_run(task.run)
        if tracker is None or tracker_run is None:
            raise DestinationError(f"The stack {self.stack.name!r} has no experiment tracker for {ref.name!r}.")
        manifest = self.store_of(ref.uri).manifest(ref)
        kind = type(value).__name__
        scope = "" if task.run.map_index is None else f"{task.step}.{task.run.map_index}."
        if kind == "Metrics":
            named = {f"{scope}{key}": number for key, number in value.items()}
            tracker.log_metrics(tracker_run, named, step=value.step, timestamp=datetime.fromisoformat(manifest.created))
        elif kind == "Parameters":
            tracker.log_params(tracker_run, {f"{scope or f'{task.step}.'}{key}": item for key, item in value.items()})
        else:
            tracker.set_tags(tracker_run, {f"tailrace.artifact.{scope}{ref.name}": ref.uri})
        return f"{tracker.name}:{tracker_run}"

    def _register(self, task: Task, value: _Value, ref: ArtifactRef) -> str:
        prompt = "Prompt" in value.names
        registry = self.prompt_registry if prompt else self.registry
        if registry is None:
            raise DestinationError(f"The stack {self.stack.name!r} has no model registry for {ref.name!r}.")
        manifest = self.store_of(ref.uri).manifest(ref)
        if prompt:
            if not isinstance(registry, PromptRegistry):
                raise DestinationError(
                    f"The registry {registry.name!r} keeps no prompts such as {ref.name!r}. Set register: false in the "
                    "rule for Prompt, or take a registry that does."
                )
            name, version = registry.register_prompt(self._told(value, ref), ref, manifest, run=task.run)
            return f"{registry.name}:{name}/{version}"
        shared = self.stack.tracker is not None and self.stack.tracker.type == registry.name
        tracker_run = self.tracker_run(task.run) if shared else None  # another tracker's run means nothing to it
        name, version = registry.register(ref, manifest, run=task.run, tracker_run=tracker_run)
        return f"{registry.name}:{name}/{version}"


def as_declared(value: Any, annotation: Any, step: str, output: str) -> tuple[Any, bool]:
    """The value as the declared artifact type, and whether it was returned bare."""
    declared = asset_type(annotation)
    if declared is None or isinstance(value, declared | Copy) or (value is None and annotation is not declared):
        return value, False
    try:
        return declared.wrap(value), True
    except TypeError as error:
        raise MaterializationError(
            f"The step {step!r} declares the output {output!r} as {declared.__name__}, but returned a "
            f"{type_name(type(value))}: {error}"
        ) from error


def _described(returned: Any, annotation: Any, step: str, output: str, tags: Mapping[str, str]) -> _Value:
    """An output, and what its manifest is to say beside its content."""
    if isinstance(returned, Copy) and returned.store is not None:
        from .cache.entries import own_parents

        with _copying(returned):
            said = returned.store.manifest(returned.ref)
        return _Value(returned, returned.names, said.bare, said.tags, own_parents(said))
    value, bare = as_declared(returned, annotation, step, output)
    names = value.names if isinstance(value, Copy) else tuple(routing_names(type(value)))
    named = (_parent(parent) for parent in value.parents) if isinstance(value, Asset) else ()
    return _Value(value, names, bare, tags, tuple(parent for parent in named if parent.id))


@contextmanager
def _copying(copy: Copy) -> Iterator[None]:
    """Of an artifact that the step cache kept, whatever goes wrong is a reason to compute."""
    try:
        yield
    except (TailraceError, OSError) as error:
        if copy.store is None:
            raise
        raise CopyFailed(str(error)) from error


def _labels(task: Task, output: str, value: _Value) -> Labels:
    run = task.run
    producer = Producer(
        project=run.project,
        pipeline=run.pipeline,
        step=task.step,
        output=output,
        run_id=run.run_id,
        map_index=run.map_index,
        attempt=run.attempt,
        code_version=task.code_version,
        plan_version=task.plan_version,
        orchestrator=run.orchestrator,
    )
    return Labels(
        artifact_id(run.project, run.run_id, task.step, output, run.map_index),
        output,
        producer=producer,
        parents=task.parents + value.parents,
        tags=value.tags,
        bare=value.bare,
    )


def _parent(parent: Any) -> Parent:
    """A parent that the user named: a reference, or an id (also that of an asset, which is known by its name only)."""
    if isinstance(parent, ArtifactRef):
        return Parent(parent.id, parent.uri, parent.digest)
    return Parent(parent.name or "" if isinstance(parent, Asset) else str(parent), "", "")
