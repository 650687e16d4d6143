"""Wiring by calls: a ``@pipeline`` function is called with stand-ins, and the calls of its steps become nodes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .errors import PipelineError, Problem
from .plan import CONDITION, Binding, Fixed, FromOutput, FromParam, Gather, Node, Param
from .ref import Ref
from .step import Condition, Step, tracing

__all__ = ["wire_by_calls"]


class _StandIn:
    """What a ``@pipeline`` function handles instead of a value: there is nothing to look at before the run."""

    def __init__(self, binding: FromOutput | FromParam) -> None:
        self.binding = binding

    def _refuse(self, *_: Any, **__: Any) -> Any:
        what = "its value is known only when the pipeline runs, so it cannot be used here; do this inside a step"
        raise PipelineError("The pipeline cannot be planned", [Problem(what, f"{self!r}")])

    def __repr__(self) -> str:
        if isinstance(self.binding, FromParam):
            return f"parameter {self.binding.name!r}"
        return f"output {self.binding.output!r} of step {self.binding.node!r}"

    __bool__ = __len__ = __iter__ = __getitem__ = __float__ = __int__ = __contains__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse


class _Outputs(tuple[_StandIn, ...]):
    """Several outputs of one step: unpacked by position, or taken by name as attributes."""

    names: tuple[str, ...]

    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__") or name not in self.names:
            raise AttributeError(f"no output {name!r}; the step declares {', '.join(self.names)}")
        return self[self.names.index(name)]


class _Trace:
    """Draws up the nodes while a ``@pipeline`` function calls its steps."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.nodes: dict[str, Node] = {}

    def call(self, step: Step[..., Any], fixed: Mapping[str, Any], mapped: Mapping[str, Any]) -> Any:
        name, count = step.name, 2
        while name in self.nodes:
            name, count = f"{step.name}-{count}", count + 1
        bindings = {parameter: self._binding(value) for parameter, value in {**fixed, **mapped}.items()}
        place = f"step {name!r}"
        for parameter, declared in step.parameters.items():
            if parameter not in bindings and declared.default is inspect.Parameter.empty:
                self.problems.append(Problem(f"no value is given for {parameter!r}", place))
        condition = step.condition or Condition(None)
        if step.condition is not None:
            bindings[CONDITION] = self._binding(condition.source)
            step = replace(step, condition=None)
        node = self.nodes[name] = Node(name, step, bindings, tuple(mapped), condition.equals)
        found = _Outputs(_StandIn(FromOutput(name, output.name)) for output in node.outputs)
        found.names = tuple(output.name for output in node.outputs)
        return found if len(found) > 1 else found[0]

    def _binding(self, value: Any) -> Binding:
        value = _behind(value)
        if isinstance(value, _StandIn):
            return value.binding
        if isinstance(value, list | tuple) and value and all(isinstance(item, _StandIn) for item in value):
            sources = [item.binding for item in value]
            if all(isinstance(source, FromOutput) for source in sources):
                return Gather(tuple(source for source in sources if isinstance(source, FromOutput)))
        if _holds_stand_in(value):
            what = "a list may hold outputs of steps only; pass other values as arguments of their own"
            raise PipelineError("The pipeline cannot be planned", [Problem(what, repr(value))])
        return Fixed(value)


def _behind(value: Any) -> Any:
    """The value without a handle around it, or around its items: what is wired is what that stands for."""
    if type(value) in (list, tuple):
        return type(value)(map(_behind, value))
    return value.load() if isinstance(value, Ref) else value


def _holds_stand_in(value: Any) -> bool:
    if isinstance(value, _StandIn):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_stand_in, value.values()))
    return isinstance(value, list | tuple | set) and any(map(_holds_stand_in, value))


def wire_by_calls(
    function: Callable[..., Any], defaults: Mapping[str, Any], problems: list[Problem]
) -> tuple[list[Node], dict[str, Param]]:
    """The nodes and the parameters, which are the function's."""
    probe = Step(fn=function, name=function.__name__)
    params = {
        name: Param(name, defaults.get(name, item.default), probe.annotations.get(name, inspect.Parameter.empty))
        for name, item in probe.parameters.items()
    }
    trace = _Trace(problems)
    token = tracing.set(trace)
    try:
        function(**{name: _StandIn(FromParam(name)) for name in params})
    except PipelineError as error:
        problems += error.problems
    finally:
        tracing.reset(token)
    return list(trace.nodes.values()), params
