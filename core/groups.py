"""Steps that share one task: an engine sees a group of them as one node, whose members run one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .errors import Problem
from .plan import Binding, FromOutput, Gather, Node, Plan
from .step import Step

__all__ = ["fused", "group_problems", "in_order"]

_SHARED = ("pool", "queue", "priority", "owner")
_MERGED = ("resources", "airflow", "prefect")


def in_order(nodes: Sequence[Node], problems: list[Problem]) -> tuple[Node, ...]:
    """The nodes in topological order, as early in the order of definition as their inputs allow."""
    by_name = {node.name: node for node in nodes}
    sorter = TopologicalSorter({node.name: node.upstream for node in nodes})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        problems.append(Problem(f"cycle: {' -> '.join(circle)}", f"step {circle[0]!r}"))
        return ()
    rank = {name: index for index, name in enumerate(by_name)}
    ordered: list[Node] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=rank.__getitem__)
        name = ready.pop(0)
        ordered.append(by_name[name])
        sorter.done(name)
    return tuple(ordered)


def groups_of(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """The nodes of each group, in order. A group of one is none."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        if node.step.group is not None:
            found.setdefault(node.step.group, []).append(node)
    return {name: members for name, members in found.items() if len(members) > 1}


def group_problems(nodes: Sequence[Node]) -> Iterator[Problem]:
    """Why the steps of a group cannot be one task; ``nodes`` are in topological order."""
    groups = groups_of(nodes)
    for name, members in groups.items():
        place = f"group {name!r}"
        own = {member.name for member in members}
        if any(node.name == name and node.name not in own for node in nodes):
            yield Problem("a step outside the group has its name; rename one of them", place)
        between = next(iter(_between(nodes, own)), None)
        if between is not None:
            yield Problem(
                f"its steps cannot be one task, since {between!r}, which is not in it, runs between them", place
            )
        mapped = [member.name for member in members if member.mapped]
        if mapped and len(mapped) < len(members):
            single = next(member.name for member in members if not member.mapped)
            what = f"{mapped[0]!r} is mapped and {single!r} is not; a group has one task, or one for each item"
            yield Problem(what, place)
        yield from _gathering(members, own, place)
        yield from _disagreements(members, place)


def _between(nodes: Sequence[Node], own: set[str]) -> Iterator[str]:
    """The nodes outside a group that need one of its steps, and that one of its steps needs."""
    after: set[str] = set()
    before = {name for node in nodes if node.name in own for name in node.upstream}
    for node in reversed(nodes):
        if node.name in before:
            before |= set(node.upstream)
    for node in nodes:
        if node.name not in own and any(name in own or name in after for name in node.upstream):
            after.add(node.name)
            if node.name in before:
                yield node.name


def _gathering(members: Sequence[Node], own: set[str], place: str) -> Iterator[Problem]:
    """Members that take all items of another member: each item is a task of its own."""
    for member in members:
        for parameter, sources in member.sources.items():
            inner = next((source.node for source in sources if source.node in own), None)
            gathered = isinstance(member.bindings[parameter], Gather)
            if inner and member.mapped and (gathered or parameter not in member.mapped):
                what = f"{member.name!r} takes every item of {inner!r}, and a task of the group has one"
                yield Problem(what, f"{place}, parameter {parameter!r}")


def _disagreements(members: Sequence[Node], place: str) -> Iterator[Problem]:
    for option in _SHARED:
        said = {getattr(member.step, option) for member in members} - {None}
        if len(said) > 1:
            yield Problem(f"its steps give different values for {option}: {sorted(map(repr, said))}", place)
    for option in _MERGED:
        merged: dict[str, Any] = {}
        for member in members:
            given = getattr(member.step, option)
            wrong = next((key for key in given if key in merged and merged[key] != given[key]), None)
            if wrong is not None:
                yield Problem(f"its steps give different values for {option}[{wrong!r}]", place)
            merged.update(given)


# --- the plan of tasks ----------------------------------------------------------------------------------------------


def fused(plan: Plan) -> Plan:
    """The plan with the steps of each group as one node: what they take from outside, and ``step.output`` for each."""
    groups = groups_of(plan.nodes)
    if not groups:
        return plan
    owner = {member.name: name for name, members in groups.items() for member in members}
    nodes: dict[str, Node] = {}
    for node in plan.nodes:
        name = owner.get(node.name)
        if name is None:
            bindings = {key: _moved(binding, owner) for key, binding in node.bindings.items()}
            nodes[node.name] = replace(node, bindings=bindings)
        elif name not in nodes:
            nodes[name] = _fused_node(name, groups[name], owner)
    return Plan(plan.name, in_order(list(nodes.values()), []), plan.params, plan.description, plan)


def _fused_node(name: str, members: Sequence[Node], owner: Mapping[str, str]) -> Node:
    bindings: dict[str, Binding] = {}
    mapped: list[str] = []
    for member in members:
        for parameter, binding in member.bindings.items():
            outer = tuple(source for source in member.sources.get(parameter, ()) if owner.get(source.node) != name)
            if isinstance(binding, Gather) and outer:
                binding = Gather(outer)
            elif isinstance(binding, FromOutput | Gather) and not outer:
                continue
            key = f"{member.name}.{parameter}"
            bindings[key] = _moved(binding, owner)
            mapped += [key] if parameter in member.mapped else []
    return Node(name, _fused_step(name, members), bindings, tuple(mapped), members=tuple(members))


def _moved(binding: Binding, owner: Mapping[str, str]) -> Binding:
    """The binding in a plan where an output of a step in a group is one of the group's node."""
    if isinstance(binding, Gather):
        return Gather(tuple(_source(item, owner) for item in binding.items))
    return _source(binding, owner) if isinstance(binding, FromOutput) else binding


def _source(source: FromOutput, owner: Mapping[str, str]) -> FromOutput:
    name = owner.get(source.node)
    return source if name is None else FromOutput(name, f"{source.node}.{source.output}")


def _fused_step(name: str, members: Sequence[Node]) -> Step[..., Any]:
    """A step that stands for the members where an engine asks for options. Each keeps its retries and its timeout."""
    steps = [member.step for member in members]
    most = max(steps, key=lambda step: step.retries)
    options: dict[str, Any] = {
        option: next((given for step in steps if (given := getattr(step, option)) is not None), None)
        for option in _SHARED
    }
    options |= {option: {k: v for step in steps for k, v in getattr(step, option).items()} for option in _MERGED}
    return Step(
        _Together(name, [member.name for member in members]),
        name,
        retries=most.retries,
        retry_delay=most.retry_delay,
        tags=tuple(dict.fromkeys(tag for step in steps for tag in step.tags)),
        **options,
    )


class _Together:
    """Stands where a step has its function; the members are run by the runtime."""

    def __init__(self, name: str, members: Sequence[str]) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"The steps {', '.join(members)}, one after the other."

    def __call__(self) -> None:
        raise TypeError(f"{self.__name__!r} is a group of steps; it is run as a task.")
