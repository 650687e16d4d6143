"""The inputs of one task: what each parameter of its function receives, and the artifacts that these are."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core.annotations import allows_none, asset_type, concrete, item_type, pointed
from ..core.assets import Asset, Metrics, Parameters
from ..core.errors import IntegrityError, StepSkipped
from ..core.plan import CONDITION, Fixed, FromOutput, FromParam, Gather, Node, Plan
from ..core.ref import Ref
from ..core.refs import ArtifactRef, Manifest, Parent, Run, named_artifact
from ..core.step import Condition
from ..core.typenames import asset_named, routing_names, type_name
from ..materializers.files import FileReader
from ..routing.router import Copy
from ..stores.base import ArtifactStore

__all__ = ["Given", "find_inputs", "handed_on", "load_inputs"]


class Loader(Protocol):
    """Gives the artifacts behind references: a :class:`Router`, or a task's memory before it."""

    def load(self, ref: ArtifactRef, columns: Sequence[Any] | None = None) -> tuple[Any, Any]:
        """The value, or some columns of it, and its manifest."""
        ...

    def store_of(self, uri: str) -> ArtifactStore:
        """The store that holds a URI."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """What one parameter is given: artifacts by ``refs`` (a reference, or lists of them), else ``value`` as it is.

    ``item`` says that the value is this task's item of the list that ``refs`` names; ``skipped`` that what was to be
    given was skipped, and the value stands for it.
    """

    refs: Any = None
    value: Any = None
    item: bool = False
    skipped: bool = False


def find_inputs(
    plan: Plan, node: Node, run: Run, refs: Mapping[str, Any], router: Loader
) -> tuple[dict[str, Given], tuple[Parent, ...]]:
    """What the parameters of one task are given, and the artifacts among that. Only lists to be divided are loaded.

    Raises :class:`StepSkipped` where the condition does not hold or an input that is needed was skipped, before
    anything else is looked at.
    """
    _check_condition(node, run, refs, router)
    inputs = {name: Given(value=value, skipped=True) for name, value in _absent(node, run, refs)}
    absent = set(inputs)
    parents: list[Parent] = []
    for name, binding in node.bindings.items():
        if name in absent:
            continue
        own = name in node.mapped
        lazy = pointed(node.step.annotations.get(name)) is not None
        if isinstance(binding, Fixed | FromParam):
            value = binding.value if isinstance(binding, Fixed) else run.params[binding.name]
            value = value[run.map_index] if own else value
            is_artifact = isinstance(binding, FromParam) and plan.params[binding.name].is_artifact
            found = _named(value, router) if lazy or is_artifact else None
        else:
            found, value = _present(refs[name]), None
        parents += [Parent(ref.id, ref.uri, ref.digest, name) for ref in _flat(found)]
        if name == CONDITION:
            continue
        if own and found is not None and isinstance(binding, FromOutput) and not plan.node(binding.node).mapped:
            value = router.load(found)[0]
            items = value.data if isinstance(value, Asset) else value  # one list, of which this task has an item
            inputs[name] = Given(found, items[run.map_index], item=True)
        else:
            inputs[name] = Given(found, value)
    return inputs, tuple(parents)


def load_inputs(node: Node, inputs: Mapping[str, Given], router: Loader) -> dict[str, Any]:
    """The arguments of one task: artifacts loaded, or a handle where a ``Ref`` is asked for."""
    arguments: dict[str, Any] = {}
    for name, given in inputs.items():
        wanted = node.step.annotations.get(name)
        if given.refs is not None and not given.item:
            arguments[name] = _loaded(given.refs, wanted, router)
        elif pointed(wanted) is not None and given.value is not None and not (given.item or given.skipped):
            arguments[name] = Ref.of(given.value, name)
        else:
            arguments[name] = given.value
    return arguments


def _check_condition(node: Node, run: Run, refs: Mapping[str, Any], router: Loader) -> None:
    """Raise :class:`StepSkipped`, saying what the condition's value is, unless the condition holds."""
    binding = node.bindings.get(CONDITION)
    if binding is None:
        return
    if isinstance(binding, FromOutput):
        if refs[CONDITION] is None:
            raise StepSkipped(f"upstream step {binding.node!r} was skipped")
        value = _adapt(*router.load(refs[CONDITION]), None)
    else:
        value = run.params[binding.name] if isinstance(binding, FromParam) else getattr(binding, "value", None)
    try:
        holds = Condition(value, node.equals).holds()
    except (TypeError, ValueError) as error:
        what = f"a {type_name(type(value))}, which is neither"
        raise TypeError(f"The step {node.name!r} runs only if {node.condition}, but that is {what}: {error}") from error
    if not holds:
        raise StepSkipped(f"it runs only if {node.condition}; it is {reprlib.repr(value)}")


def _absent(node: Node, run: Run, refs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The inputs that were skipped, with their default, or None where that is allowed.

    Raises :class:`StepSkipped` for one that is needed. Of a list, all must have been skipped.
    """
    for name, sources in node.sources.items():
        gathered = isinstance(node.bindings[name], Gather)
        own = gathered and name in node.mapped
        absent = refs[name] is None or (gathered and not own and not _present(refs[name]))
        if not absent or name == CONDITION:
            continue
        declared = node.step.parameters.get(name)
        if declared is not None and declared.default is not inspect.Parameter.empty:
            yield name, declared.default
        elif allows_none(node.step.annotations.get(name)):
            yield name, None
        else:
            source = sources[run.map_index or 0 if own else 0]
            raise StepSkipped(f"upstream step {source.node!r} was skipped")


def _present(refs: Any) -> Any:
    """The references without those of what was skipped."""
    return [_present(ref) for ref in refs if ref is not None] if isinstance(refs, list) else refs


def _flat(refs: Any) -> Iterator[ArtifactRef]:
    if isinstance(refs, list):
        for ref in refs:
            yield from _flat(ref)
    elif refs is not None:
        yield refs


def _loaded(refs: Any, wanted: Any, router: Loader) -> Any:
    if isinstance(refs, list):
        return [_loaded(ref, item_type(wanted), router) for ref in refs]
    target = pointed(wanted)
    if target is not None:
        return Ref(refs, _Stored(router, refs, target))
    return _adapt(*router.load(refs), wanted)


class _Stored:
    """What a :class:`Ref` stands for: an artifact in a store of the stack."""

    def __init__(self, router: Loader, ref: ArtifactRef, wanted: Any) -> None:
        self._router = router
        self._ref = ref
        self._wanted = wanted
        self._files: FileReader | None = None

    def manifest(self) -> Manifest:
        return self._router.store_of(self._ref.uri).manifest(self._ref)

    def path(self, file: str) -> Path:
        if self._files is None:  # one copy, where the store is not local
            self._files = self._router.store_of(self._ref.uri).reader(self._ref)[0]
        return self._files.path(file)

    def load(self, columns: Sequence[Any] | None) -> Any:
        return _adapt(*self._router.load(self._ref, columns), self._wanted)

    def as_it_is(self, declared: Any) -> Copy | None:
        """The artifact itself, where the value that an output of this annotation stores would be all of it.

        Not of Metrics and Parameters, whose values trackers are told.
        """
        manifest = self.manifest()
        if not manifest.wrapper:
            return None  # rules go by a class and its bases, which a name alone does not tell
        kind = asset_named(manifest.wrapper)
        wanted, output = asset_type(self._wanted), asset_type(declared)
        unchanged = issubclass(kind, wanted) if wanted else concrete(self._wanted) is None and not manifest.bare
        fits = output is None or issubclass(kind, output)
        names = tuple(routing_names(kind))
        return Copy(self._ref, names) if unchanged and fits and not issubclass(kind, Metrics | Parameters) else None

    def close(self) -> None:
        if self._files is not None:
            self._router.store_of(self._ref.uri).release_tree(self._files.directory)
            self._files = None


def handed_on(returned: Any, declared: Any) -> Any:
    """What is to be stored of what a step returns: of a handle the artifact as it is, or its value as it was."""
    if not isinstance(returned, Ref):
        return returned
    copy = returned.source.as_it_is(declared) if isinstance(returned.source, _Stored) else None
    if copy is None:
        returned.release()  # what was loaded may have been changed
    return copy or returned.load()


def _named(value: Any, router: Loader) -> ArtifactRef | None:
    """The artifact that a parameter's value stands for, as it is now; None for a value that stands for itself."""
    named = named_artifact(value)
    if named is None:
        return None
    uri, digest = named
    ref = router.store_of(uri).ref(uri)
    if digest and ref.digest != digest:
        raise IntegrityError(f"The artifact at {uri} has the digest {ref.digest}; the run was given {digest}.")
    return ref


def _adapt(value: Any, manifest: Any, wanted: Any) -> Any:
    """The value as the parameter's annotation asks for it: an artifact type, or what it holds."""
    declared = asset_type(wanted)
    if value is None:
        return None
    if declared is not None:
        return value if isinstance(value, declared) else declared.wrap(value, manifest.name)
    if not isinstance(value, Asset):
        return value
    plain = concrete(wanted) if wanted is not None else None
    if plain is None:
        return value.data if manifest.bare else value
    return value if isinstance(value, plain) else value.data
