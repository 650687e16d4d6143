"""The Plan: what an adapter sees of a pipeline. Nodes in topological order, each parameter bound to its source."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from .annotations import asset_type, canonical, conforms, describe, pointed
from .errors import PipelineError, Problem, did_you_mean
from .refs import ArtifactRef
from .step import TRUTHY, Output, Step

__all__ = [
    "CONDITION",
    "TRUTHY",
    "Binding",
    "Fixed",
    "FromOutput",
    "FromParam",
    "Gather",
    "Node",
    "Param",
    "Plan",
]

CONDITION = "when?"
"""The key of a node's bindings under which its condition's source is: no parameter can have this name."""


@dataclass(frozen=True, slots=True)
class FromOutput:
    """An upstream node's output; a list of them, in order, where that node is mapped."""

    node: str
    output: str


@dataclass(frozen=True, slots=True)
class FromParam:
    """A parameter of the pipeline."""

    name: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """A value written in the pipeline itself."""

    value: Any


@dataclass(frozen=True, slots=True)
class Gather:
    """Several upstream outputs, received as one list."""

    items: tuple[FromOutput, ...]


Binding = FromOutput | FromParam | Fixed | Gather


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the pipeline: its default (``Parameter.empty`` if it must be given) and annotation."""

    name: str
    default: Any = inspect.Parameter.empty
    annotation: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether a run must give it."""
        return self.default is inspect.Parameter.empty

    @property
    def is_artifact(self) -> bool:
        """Whether it is annotated as an artifact type or a ``Ref``, so that a run may be given a reference."""
        return asset_type(self.annotation) is not None or pointed(self.annotation) is not None


@dataclass(frozen=True)
class Node:
    """One use of a step. Parameters without a binding take the function's own default.

    ``mapped`` names the parameters that are mapped over: the node runs once per item of them. Under ``CONDITION`` the
    bindings have what decides whether it runs: it must equal ``equals``, or be true. Only a node of
    :attr:`Plan.tasks` has ``members``: the steps that are one task, in order.
    """

    name: str
    step: Step[..., Any]
    bindings: Mapping[str, Binding]
    mapped: tuple[str, ...] = ()
    equals: Any = TRUTHY
    members: tuple[Node, ...] = ()

    @property
    def condition(self) -> str:
        """What must hold for it to run, in words; empty where it always does."""
        if CONDITION not in self.bindings:
            return ""
        return f"{_said(self.bindings[CONDITION])} is {'true' if self.equals is TRUTHY else repr(self.equals)}"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The step's outputs; one that nobody named is named for this node. Those of members begin with their name."""
        if self.members:
            return tuple(
                Output(f"{member.name}.{output.name}", output.annotation)
                for member in self.members
                for output in member.outputs
            )
        if self.step.declared_outputs or self.name == self.step.name:
            return self.step.outputs
        return (Output(self.name, self.step.outputs[0].annotation),)

    @functools.cached_property
    def sources(self) -> Mapping[str, tuple[FromOutput, ...]]:
        """The upstream outputs that each parameter takes."""
        found: dict[str, tuple[FromOutput, ...]] = {}
        for parameter, binding in self.bindings.items():
            if isinstance(binding, FromOutput):
                found[parameter] = (binding,)
            elif isinstance(binding, Gather):
                found[parameter] = binding.items
        return found

    @functools.cached_property
    def upstream(self) -> tuple[str, ...]:
        """The names of the nodes whose outputs this one takes, each once."""
        return tuple(dict.fromkeys(source.node for sources in self.sources.values() for source in sources))


@dataclass(frozen=True)
class Plan:
    """A checked pipeline: ``nodes`` in topological order, ``params`` with their defaults.

    ``fused_from`` is set on :attr:`tasks` only: the plan that these are the tasks of.
    """

    name: str
    nodes: tuple[Node, ...]
    params: Mapping[str, Param] = field(default_factory=dict)
    description: str = ""
    fused_from: Plan | None = None

    @property
    def origin(self) -> Plan:
        """The plan whose nodes are the pipeline's steps: this one, unless it is one of :attr:`tasks`."""
        return self.fused_from or self

    @functools.cached_property
    def tasks(self) -> Plan:
        """The plan as engines see it: the steps of each group are one node."""
        from .groups import fused

        return fused(self)

    @functools.cached_property
    def by_name(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    def node(self, name: str) -> Node:
        """The node of that name; ``KeyError`` if there is none."""
        return self.by_name[name]

    @functools.cached_property
    def version(self) -> str:
        """Twelve hex digits over the wiring, the options and the steps' code: equal for equal pipelines."""
        import hashlib

        text = repr(
            [
                (
                    node.name,
                    node.step.code_version,
                    sorted((key, repr(value)) for key, value in node.bindings.items()),
                    node.mapped,
                    [output.name for output in node.outputs],
                    *([repr(node.equals)] if CONDITION in node.bindings else ()),
                )
                for node in self.nodes
            ]
        )
        return hashlib.sha256(f"{self.name}{text}{sorted(self.params)}".encode()).hexdigest()[:12]

    def resolve_params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters' values: the given ones over the defaults; the reference of an artifact as its data.

        Raises :class:`~tailrace.PipelineError` naming every one that is unknown, missing or of the wrong type.
        """
        problems = [
            Problem(f"unknown parameter {name!r}.{did_you_mean(name, self.params)}", f"pipeline {self.name!r}")
            for name in given
            if name not in self.params
        ]
        values: dict[str, Any] = {}
        for name, param in self.params.items():
            place = f"pipeline {self.name!r}, parameter {name!r}"
            if name not in given and param.required:
                problems.append(Problem("no value is given and there is no default", place))
                continue
            value = given.get(name, param.default)
            values[name] = value.to_dict() if param.is_artifact and isinstance(value, ArtifactRef) else value
            if not conforms(values[name], param.annotation):
                expected = describe(param.annotation)
                problems.append(Problem(f"{values[name]!r} is not of the annotated type {expected}", place))
            values[name] = canonical(values[name], param.annotation)
        if problems:
            raise PipelineError(f"The pipeline {self.name!r} cannot run", problems)
        return values

    def map_length(self, node: Node, params: Mapping[str, Any], results: Mapping[str, Any]) -> int | None:
        """How often a mapped node runs; None where what decides it was skipped, and with it the whole node.

        ``results`` holds, for each upstream node, ``{output: reference}``, or a list of those where it is mapped. None
        stands for what was skipped: a node, or one item.
        Raises :class:`~tailrace.PipelineError` when a mapped input is not a list or the lengths differ.
        """
        if self.skipped_source(node, results) is not None:
            return None
        lengths: dict[str, int] = {}
        for name in node.mapped:
            binding = node.bindings[name]
            place = f"step {node.name!r}, parameter {name!r}"
            if isinstance(binding, Gather):
                lengths[name] = len(binding.items)
            elif isinstance(binding, FromOutput):
                upstream = results[binding.node]
                length = len(upstream) if isinstance(upstream, list) else upstream[binding.output].length
                if length is None:
                    what = f"the output {binding.output!r} of step {binding.node!r} is not a list or tuple"
                    raise PipelineError("The pipeline cannot fan out", [Problem(f"{what}; return one", place)])
                lengths[name] = length
            else:
                value = params[binding.name] if isinstance(binding, FromParam) else binding.value
                if not isinstance(value, Sized) or not isinstance(value, Sequence) or isinstance(value, str | bytes):
                    raise PipelineError("The pipeline cannot fan out", [Problem(f"{value!r} is not a list", place)])
                lengths[name] = len(value)
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise PipelineError(
                "The pipeline cannot fan out",
                [Problem(f"inputs that are mapped together differ in length: {sizes}", f"step {node.name!r}")],
            )
        return next(iter(lengths.values()))

    def map_sources(self, node: Node) -> tuple[str, ...]:
        """The upstream nodes that decide how often a mapped node runs."""
        bindings = (node.bindings[name] for name in node.mapped)
        return tuple(dict.fromkeys(binding.node for binding in bindings if isinstance(binding, FromOutput)))

    def skipped_source(self, node: Node, results: Mapping[str, Any]) -> str | None:
        """The skipped upstream node because of which a mapped node has no items, if there is one."""
        bindings = (node.bindings[name] for name in node.mapped)
        sources = (binding for binding in bindings if isinstance(binding, FromOutput))
        return next((source.node for source in sources if _pick(results[source.node], source.output) is None), None)

    def task_inputs(self, node: Node, results: Mapping[str, Any], index: int | None = None) -> dict[str, Any]:
        """What one task takes from upstream, ``{parameter: node result}``, or a list of results.

        ``results`` holds whatever stands for the nodes' results (references, futures), in a list for a mapped node, and
        None for what was skipped. A condition is an input like any other, under ``CONDITION``. Of a mapped upstream a
        task of a mapped node gets its own item, any other task all of them in order.
        """
        inputs: dict[str, Any] = {}
        for parameter, sources in node.sources.items():
            own = index is not None and parameter in node.mapped
            found = [results[source.node] for source in sources]
            if isinstance(node.bindings[parameter], Gather):
                inputs[parameter] = found[index] if index is not None and own else found
            else:
                item = index if own and isinstance(found[0], list) else None
                inputs[parameter] = found[0] if item is None else found[0][item]
        return inputs

    def task_refs(self, node: Node, inputs: Mapping[str, Any], index: int | None = None) -> dict[str, Any]:
        """The references that one task loads, out of :meth:`task_inputs` whose results are ``{output: reference}``.

        What was skipped is None, also as an item of a list.
        """
        refs: dict[str, Any] = {}
        for parameter, given in inputs.items():
            sources = node.sources[parameter]
            if not isinstance(node.bindings[parameter], Gather):
                refs[parameter] = _pick(given, sources[0].output)
            elif index is not None and parameter in node.mapped:
                refs[parameter] = _pick(given, sources[index].output)
            else:
                refs[parameter] = [_pick(one, source.output) for one, source in zip(given, sources, strict=True)]
        return refs


def _pick(result: Any, output: str) -> Any:
    if isinstance(result, list):
        return [_pick(item, output) for item in result]
    return None if result is None else result.get(output)  # of a task of several steps, one may have been skipped


def _said(binding: Binding) -> str:
    """Where a value comes from, in words."""
    if isinstance(binding, FromOutput):
        return f"output {binding.output!r} of step {binding.node!r}"
    if isinstance(binding, FromParam):
        return f"parameter {binding.name!r}"
    return repr(binding.value if isinstance(binding, Fixed) else binding)
