"""What is sent to a worker process of a task: its own part of the plan, once made into bytes, and once read there."""

from __future__ import annotations

import functools
import io
import pickle
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import cloudpickle

from ...core.plan import FromParam, Node, Plan
from ...core.step import TRUTHY, Step

__all__ = ["packed", "part_of", "unpacked"]

_LOCK = threading.Lock()


def part_of(plan: Plan, names: Iterable[str]) -> Plan:
    """The plan as the tasks of these nodes need it, under the whole plan's version.

    The nodes are there as they are; of those that they take from there is only the name, and whether it is mapped.
    """
    kept = [plan.node(name) for name in names]
    near = dict.fromkeys(name for node in kept for name in node.upstream)
    shades = [_shade(plan.node(name), kept[0].step) for name in near if name not in {node.name for node in kept}]
    used = {binding.name for node in kept for binding in node.bindings.values() if isinstance(binding, FromParam)}
    members = [member.name for node in kept for member in node.members or (node,)]
    whole = part_of(plan.fused_from, members) if plan.fused_from is not None else None
    params = {name: param for name, param in plan.params.items() if name in used}
    part = replace(plan, nodes=(*shades, *kept), params=params, description="", fused_from=whole)
    part.__dict__["version"] = plan.version
    return part


def _shade(node: Node, step: Step[..., Any]) -> Node:
    return replace(node, step=step, bindings={}, equals=TRUTHY, members=())


def packed(plan: Plan, name: str) -> bytes:
    """The part of the plan that one node's tasks need. Steps are sent by name where a worker can import their module.

    Those of ``__main__``, of a notebook, or of a file that was loaded by its path, are sent as they are, with the
    classes that they use; so are those of modules that ``cloudpickle.register_pickle_by_value`` was told of.
    """
    part = part_of(plan, [name])
    steps = [member.step for node in part.nodes for member in node.members or (node,)]
    modules = {step.fn.__module__ for step in steps if not _importable(step.fn.__module__)}
    for step in steps:
        if step.fn.__module__ in modules:  # found out here, where the source and the names in annotations are
            _ = step.code_version, step.outputs, step.annotations
    file = io.BytesIO()
    pickler = _Pickler(file, modules)
    with _by_value(modules):
        pickler.dump(part)
        pickler.dump([kind for kind in pickler.classes.values() if "." not in kind.__qualname__])
    return file.getvalue()


def unpacked(data: bytes) -> Plan:
    """What :func:`packed` made bytes of. Classes that came along are found in their module from now on."""
    unpickler = pickle.Unpickler(io.BytesIO(data))  # noqa: S301  # from the flow's own process, as the task around it
    part: Plan = unpickler.load()
    for kind in unpickler.load():
        setattr(sys.modules.setdefault(kind.__module__, ModuleType(kind.__module__)), kind.__name__, kind)
    return part


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # has no types
    """Sends the steps of some modules by value, and keeps the classes of those modules."""

    def __init__(self, file: io.BytesIO, modules: set[str]) -> None:
        super().__init__(file)
        self.classes: dict[int, type] = {}
        self._modules = modules

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Step) and obj.fn.__module__ in self._modules:
            return object.__reduce_ex__(obj, pickle.HIGHEST_PROTOCOL)
        if isinstance(obj, type) and obj.__module__ in self._modules:
            self.classes[id(obj)] = obj
        return super().reducer_override(obj)


@contextmanager
def _by_value(modules: Iterable[str]) -> Iterator[None]:
    """Let cloudpickle send what these modules define by value, as it does with ``__main__``."""
    with _LOCK, ExitStack() as stack:
        for name in set(modules) - {"__main__"} - cloudpickle.list_registry_pickle_by_value():
            if name in sys.modules:
                cloudpickle.register_pickle_by_value(sys.modules[name])
                stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[name])
        yield


@functools.lru_cache(256)
def _importable(name: str) -> bool:
    """Whether another process with this one's ``sys.path`` imports the same module under this name."""
    if name == "__main__" or name in cloudpickle.list_registry_pickle_by_value():
        return False
    top = name.partition(".")[0]
    known = getattr(sys.modules.get(top), "__spec__", None)
    found = next(filter(None, (finder.find_spec(top, None) for finder in sys.meta_path)), None)
    return known is not None and found is not None and found.origin == known.origin
