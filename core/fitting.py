"""What is checked of nodes however they were wired: conditions by item, and annotated types that cannot fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .annotations import asset_type, compatible, describe, item_type, pointed
from .errors import Problem
from .plan import CONDITION, Fixed, FromOutput, FromParam, Gather, Node

__all__ = ["settled", "type_problems"]


def settled(nodes: Sequence[Node], problems: list[Problem]) -> list[Node]:
    """The nodes with what follows from their upstream nodes: a mapped node takes a mapped condition by item."""
    mapped = {node.name for node in nodes if node.mapped}
    found = []
    for node in nodes:
        condition = node.bindings.get(CONDITION)
        if isinstance(condition, FromOutput) and condition.node in mapped:
            if node.mapped:
                node = replace(node, mapped=(*node.mapped, CONDITION))
            else:
                what = f"its condition is an output of the mapped step {condition.node!r}; decide on the list in a step"
                problems.append(Problem(what, f"step {node.name!r}"))
        elif isinstance(condition, Gather):
            problems.append(
                Problem("its condition is a list of outputs; decide on it in a step", f"step {node.name!r}")
            )
        found.append(node)
    return found


def type_problems(nodes: Sequence[Node]) -> Iterator[Problem]:
    """Annotated types that cannot fit: of an output and the parameter that takes it."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        yield from _handle_problems(node)
        for parameter, sources in node.sources.items():
            if parameter == CONDITION:
                continue
            wanted = node.step.annotations.get(parameter, inspect.Parameter.empty)
            for source in sources:
                producer = by_name[source.node]
                given = next(output.annotation for output in producer.outputs if output.name == source.output)
                fits, shown = _fit(node, parameter, bool(producer.mapped), given, wanted)
                if not fits:
                    what = f"the output {source.output!r} of step {source.node!r} is {shown}"
                    place = f"step {node.name!r}, parameter {parameter!r}"
                    yield Problem(f"it is annotated {describe(wanted)}, but {what}", place)


def _handle_problems(node: Node) -> Iterator[Problem]:
    """Lists of handles that no steps' outputs are."""
    for parameter, binding in node.bindings.items():
        wanted = node.step.annotations.get(parameter, inspect.Parameter.empty)
        given = isinstance(binding, FromParam) or (isinstance(binding, Fixed) and binding.value)
        if given and parameter not in node.mapped and pointed(item_type(wanted)) is not None:
            what = "a list of handles is made of steps' outputs; take each other artifact by a parameter of its own"
            yield Problem(f"it is annotated {describe(wanted)}: {what}", f"step {node.name!r}, parameter {parameter!r}")


def _fit(node: Node, parameter: str, producer_is_mapped: bool, given: Any, wanted: Any) -> tuple[bool, str]:
    """Whether an output fits a parameter, as the task will receive it, and how its type is shown."""
    gathered = isinstance(node.bindings[parameter], Gather)
    if parameter not in node.mapped and (gathered or producer_is_mapped):
        one = asset_type(wanted) is not None or pointed(wanted) is not None
        takes_list = not one and (compatible(list, wanted) or compatible(tuple, wanted))
        wanted = item_type(item_type(wanted)) if gathered and producer_is_mapped else item_type(wanted)
        return takes_list and compatible(given, wanted), f"list[{describe(given)}]"
    whole = f"one artifact, {describe(given)}, of which no part is an artifact of its own"
    if parameter in node.mapped and not gathered and not producer_is_mapped:
        if pointed(wanted) is not None:
            return False, whole
        return compatible(item_type(given), wanted), describe(given)
    if pointed(item_type(wanted)) is not None:
        return False, whole
    return compatible(given, wanted), describe(given)
