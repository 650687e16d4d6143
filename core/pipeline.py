"""Pipelines: steps wired by names (``Pipeline(...).add_step``) or by calls (``@pipeline``). Both give the same Plan."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from .annotations import asset_type, compatible, describe, item_type, pointed
from .errors import PipelineError, Problem, did_you_mean
from .groups import group_problems, in_order
from .plan import CONDITION, Binding, Fixed, FromOutput, FromParam, Gather, Node, Param, Plan
from .ref import Ref
from .step import TRUTHY, Condition, Inputs, Step, tracing

if TYPE_CHECKING:
    from .results import RunResult

__all__ = ["RESERVED", "Pipeline", "context", "pipeline"]

RESERVED = frozenset({"run_id", "stack"})
"""Names that a run itself takes, so no pipeline parameter can have them."""


def context(**params: Any) -> dict[str, Any]:
    """The parameters of a pipeline wired by names: each is injected into the step parameters of its name.

    >>> context(lr=0.01)
    {'lr': 0.01}
    """
    return params


@dataclass(frozen=True)
class _Use:
    """A step added to a pipeline that is wired by names."""

    step: Step[..., Any]
    name: str
    mapped: tuple[str, ...]
    condition: tuple[str, Any] | None


class Pipeline:
    """Steps and how they are wired. Nothing runs, and nothing is looked up, before :meth:`run` or :meth:`plan`."""

    def __init__(
        self,
        name: str,
        *,
        context: Mapping[str, Any] | None = None,
        description: str = "",
        function: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self.context = dict(context or {})
        self.description = description or inspect.getdoc(function) or ""
        self.function = function
        self._uses: list[_Use] = []

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the ``@pipeline`` function; inside another pipeline its steps become part of that one."""
        if self.function is None:
            raise TypeError(f"{self!r} is wired by names and cannot be called; use .run(params=...).")
        return self.function(*args, **kwargs)

    def add_step(
        self,
        step: Step[..., Any] | Callable[..., Any],
        *,
        name: str | None = None,
        map_over: str | Sequence[str] = (),
        when: str | Mapping[str, Any] | None = None,
    ) -> Pipeline:
        """Add a step, wired by names: a parameter takes the output, else the context value, of its own name.

        With ``map_over`` the step runs once per item of those inputs, which are lists. With ``when`` it runs only if
        the output or context value of that name is true, or, as ``{name: value}``, equals a value. Returns the
        pipeline.
        """
        if self.function is not None:
            raise TypeError(f"{self!r} is wired by calls; call the step inside the @pipeline function.")
        made = step if isinstance(step, Step) else Step(fn=step, name=getattr(step, "__name__", "step"))
        if made.condition is not None:
            raise TypeError(
                f"{self!r} is wired by names; write add_step({made.name}, when=...) in place of .when(...)."
            )
        mapped = (map_over,) if isinstance(map_over, str) else tuple(map_over)
        self._uses.append(_Use(made, name or made.name, mapped, _condition(when, name or made.name)))
        return self

    def plan(self, params: Mapping[str, Any] | None = None) -> Plan:
        """The checked Plan. ``params`` may add context for a pipeline wired by names.

        Raises :class:`~tailrace.PipelineError` that lists everything that is wrong.
        """
        problems: list[Problem] = []
        if self.function is None:
            nodes, inputs = _wire_by_names(self._uses, {**self.context, **(params or {})}, self.context, problems)
        else:
            nodes, inputs = _wire_by_calls(self.function, self.context, problems)
        for reserved in sorted(RESERVED & set(inputs)):
            what = f"the parameter name {reserved!r} is taken by the run itself; choose another"
            problems.append(Problem(what, f"pipeline {self.name!r}"))
        if not nodes and not problems:
            problems.append(Problem("it has no steps", f"pipeline {self.name!r}"))
        nodes = _settled(nodes, problems)
        problems += _type_problems(nodes)
        ordered = in_order(nodes, problems)
        problems += group_problems(ordered)
        if problems:
            raise PipelineError(f"The pipeline {self.name!r} cannot be planned", problems)
        return Plan(self.name, ordered, inputs, self.description)

    def run(
        self,
        params: Mapping[str, Any] | None = None,
        *,
        stack: str | None = None,
        orchestrator: str | None = None,
        run_id: str | None = None,
        config: str | None = None,
        on_event: Callable[[Any], None] | None = None,
    ) -> RunResult:
        """Run the pipeline here and now, on the stack's orchestrator (the Prefect engine unless it says otherwise).

        ``params`` override the context or the defaults. ``run_id`` names the run; the same id again continues that
        run's record with the same paths. ``on_event`` is called with a :class:`~tailrace.adapters.events.StepEvent` as
        steps start and end. Raises :class:`~tailrace.StepFailed`, with the run's result, when a step fails.
        """
        # By name, so that this room needs nothing of the rooms above it until a run is asked for.
        local = importlib.import_module("..adapters.local", __package__)
        result: RunResult = local.run(
            self,
            params=params,
            stack=stack,
            orchestrator=orchestrator,
            run_id=run_id,
            config=config,
            on_event=on_event,
        )
        return result


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...
@overload
def pipeline(
    *, name: str | None = None, context: Mapping[str, Any] | None = None, description: str = ""
) -> Callable[[Callable[..., Any]], Pipeline]: ...
def pipeline(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a pipeline of a function that calls steps. Its parameters are the pipeline's; defaults are the defaults.

    The function is called once per plan with stand-ins, never with data, so it must not look at values.
    """

    def make(fn: Callable[..., Any]) -> Pipeline:
        made = Pipeline(
            options.get("name") or fn.__name__,
            context=options.get("context"),
            description=options.get("description", ""),
            function=fn,
        )
        made.__module__ = fn.__module__
        return made

    return make if function is None else make(function)


# --- wiring by names -------------------------------------------------------------------------------------------------


def _condition(when: str | Mapping[str, Any] | None, step: str) -> tuple[str, Any] | None:
    """What ``when`` names, and the value that it must equal."""
    if when is None or isinstance(when, str):
        return None if when is None else (when, TRUTHY)
    if len(when) != 1:
        what = f"when is {when!r}; name one output or context value, and the value it must equal"
        raise PipelineError("The pipeline cannot be planned", [Problem(what, f"step {step!r}")])
    return next(iter(when.items()))


def _wire_by_names(
    uses: Sequence[_Use], values: Mapping[str, Any], defaults: Mapping[str, Any], problems: list[Problem]
) -> tuple[list[Node], dict[str, Param]]:
    producers: dict[str, str] = {}
    for use in uses:
        for output in use.step.outputs:
            if output.name in producers:
                what = f"the output {output.name!r} is also made by step {producers[output.name]!r}"
                problems.append(Problem(what, f"step {use.name!r}"))
            producers[output.name] = use.name
    names = [use.name for use in uses]
    problems += [
        Problem("two steps have this name", f"step {name!r}") for name in {n for n in names if names.count(n) > 1}
    ]
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


def _annotation(uses: Sequence[_Use], name: str) -> Any:
    """The annotation of a context parameter: that of the first step that takes it (unmapped)."""
    for use in uses:
        if name in use.step.parameters and name not in use.mapped:
            return use.step.annotations.get(name, inspect.Parameter.empty)
    return inspect.Parameter.empty


def _bind(
    use: _Use, producers: Mapping[str, str], params: Mapping[str, Param], problems: list[Problem]
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
        elif declared.default is inspect.Parameter.empty or (parameter in wanted and not _optional(declared)):
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


def _optional(declared: inspect.Parameter) -> bool:
    return declared.default is not inspect.Parameter.empty


def _input_names(step: Step[..., Any], problems: list[Problem]) -> dict[str, str]:
    """The output that each parameter asks for, where ``inputs`` says so: by mapping, by name, or by position."""
    inputs: Inputs = step.inputs
    if isinstance(inputs, Mapping):
        for name in set(inputs) - set(step.parameters):
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


# --- wiring by calls -------------------------------------------------------------------------------------------------


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


def _wire_by_calls(
    function: Callable[..., Any], defaults: Mapping[str, Any], problems: list[Problem]
) -> tuple[list[Node], dict[str, Param]]:
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


# --- what both share -------------------------------------------------------------------------------------------------


def _settled(nodes: Sequence[Node], problems: list[Problem]) -> list[Node]:
    """The nodes with what follows from their upstream nodes: a mapped node takes a mapped condition by item."""
    mapped = {node.name for node in nodes if node.mapped}
    settled = []
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
        settled.append(node)
    return settled


def _type_problems(nodes: Sequence[Node]) -> Iterator[Problem]:
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
