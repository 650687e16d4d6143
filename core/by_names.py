"""Wiring by names: a parameter takes the output, else the context value, of its own name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import PipelineError, Problem, did_you_mean
from .plan import CONDITION, Binding, Fixed, FromOutput, FromParam, Node, Param
from .step import TRUTHY, Inputs, Step

__all__ = ["Use", "condition_of", "wire_by_names"]


@dataclass(frozen=True)
class Use:
    """A step added to a pipeline that is wired by names."""

    step: Step[..., Any]
    name: str
    mapped: tuple[str, ...]
    condition: tuple[str, Any] | None


def condition_of(when: str | Mapping[str, Any] | None, step: str) -> tuple[str, Any] | None:
    """What ``when`` names, and the value that it must equal."""
    if when is None or isinstance(when, str):
        return None if when is None else (when, TRUTHY)
    if len(when) != 1:
        what = f"when is {when!r}; name one output or context value, and the value it must equal"
        raise PipelineError("The pipeline cannot be planned", [Problem(what, f"step {step!r}")])
    return next(iter(when.items()))


def wire_by_names(
    uses: Sequence[Use], values: Mapping[str, Any], defaults: Mapping[str, Any], problems: list[Problem]
) -> tuple[list[Node], dict[str, Param]]:
    """The nodes and the parameters; ``values`` is the context with what a run gives, ``defaults`` the context."""
    producers: dict[str, str] = {}
    for use in uses:
        for output in Node(use.name, use.step, {}).outputs:
            if output.name in producers:
                what = f"the output {output.name!r} is also made by step {producers[output.name]!r}"
                problems.append(Problem(what, f"step {use.name!r}"))
            producers[output.name] = use.name
    names = [use.name for use in uses]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    problems += [Problem("two steps have this name", f"step {name!r}") for name in twice]
    taken = {parameter for use in uses for parameter in use.step.parameters}
    taken |= {use.condition[0] for use in uses if use.condition}
    wanted = {name for use in uses for name in _input_names(use.step, []).values()}
    params = {
        name: Param(name, defaults.get(name, inspect.Parameter.empty), _annotation(uses, name))
        for name in values
        if name in defaults or (name in taken and name not in producers)
    }
    problems += [
        Problem(f"no step takes the context parameter {name!r}.{did_you_mean(name, taken - {*defaults})}", "context")
        for name in defaults
        if name not in taken and name not in wanted
    ]
    nodes = [
        Node(
            use.name,
            use.step,
            dict(_bind(use, producers, params, problems)),
            use.mapped,
            use.condition[1] if use.condition else TRUTHY,
        )
        for use in uses
    ]
    for use in uses:
        for name in use.mapped:
            if name not in use.step.parameters:
                what = f"map_over names {name!r}, which is no parameter.{did_you_mean(name, use.step.parameters)}"
                problems.append(Problem(what, f"step {use.name!r}"))
    return nodes, params


def _annotation(uses: Sequence[Use], name: str) -> Any:
    """The annotation of a context parameter: that of the first step that takes it (unmapped)."""
    for use in uses:
        if name in use.step.parameters and name not in use.mapped:
            return use.step.annotations.get(name, inspect.Parameter.empty)
    return inspect.Parameter.empty


def _bind(
    use: Use, producers: Mapping[str, str], params: Mapping[str, Param], problems: list[Problem]
) -> Iterator[tuple[str, Binding]]:
    wanted = _input_names(use.step, problems)
    for parameter, declared in use.step.parameters.items():
        name = wanted.get(parameter, parameter)
        place = f"step {use.name!r}, parameter {parameter!r}"
        if parameter in use.step.fixed:
            yield parameter, Fixed(use.step.fixed[parameter])
        elif name in producers and producers[name] != use.name:
            if name in params:
                what = f"both step {producers[name]!r} and the context give {name!r}; rename one"
                problems.append(Problem(what, place))
            yield parameter, FromOutput(producers[name], name)
        elif name in params:
            yield parameter, FromParam(name)
        elif producers.get(name) == use.name:
            problems.append(Problem(f"cycle: the step takes its own output {name!r}", place))
        elif declared.default is inspect.Parameter.empty:
            what = f"no step makes {name!r} and the context does not have it."
            problems.append(Problem(what + did_you_mean(name, {*producers, *params} - {name}), place))
    if use.condition:
        name = use.condition[0]
        if name in producers:
            yield CONDITION, FromOutput(producers[name], name)
        elif name in params:
            yield CONDITION, FromParam(name)
        else:
            what = f"when names {name!r}, which no step makes and the context does not have."
            problems.append(Problem(what + did_you_mean(name, {*producers, *params}), f"step {use.name!r}"))


def _input_names(step: Step[..., Any], problems: list[Problem]) -> dict[str, str]:
    """The output that each parameter asks for, where ``inputs`` says so: by mapping, by name, or by position."""
    inputs: Inputs = step.inputs
    if isinstance(inputs, Mapping):
        for name in (name for name in inputs if name not in step.parameters):
            what = f"inputs names {name!r}, which is no parameter.{did_you_mean(name, step.parameters)}"
            problems.append(Problem(what, f"step {step.name!r}"))
        return dict(inputs)
    unnamed = [name for name in inputs if name not in step.parameters]
    free = [name for name in step.parameters if name not in inputs]
    problems += [
        Problem(f"inputs names {name!r}, and there is no parameter left for it", f"step {step.name!r}")
        for name in unnamed[len(free) :]
    ]
    by_position = dict(zip(free, unnamed, strict=False))
    return {**{name: name for name in inputs if name in step.parameters}, **by_position}
