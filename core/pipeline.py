"""Pipelines: steps wired by names (``Pipeline(...).add_step``) or by calls (``@pipeline``). Both give the same Plan."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from .by_calls import wire_by_calls
from .by_names import Use, condition_of, wire_by_names
from .errors import PipelineError, Problem
from .fitting import settled, type_problems
from .groups import group_problems, in_order
from .plan import Plan
from .step import Step

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
        self._uses: list[Use] = []

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
        self._uses.append(Use(made, name or made.name, mapped, condition_of(when, name or made.name)))
        return self

    def plan(self, params: Mapping[str, Any] | None = None) -> Plan:
        """The checked Plan. ``params`` may add context for a pipeline wired by names.

        Raises :class:`~tailrace.PipelineError` that lists everything that is wrong.
        """
        problems: list[Problem] = []
        if self.function is None:
            nodes, inputs = wire_by_names(self._uses, {**self.context, **(params or {})}, self.context, problems)
        else:
            nodes, inputs = wire_by_calls(self.function, self.context, problems)
        for reserved in sorted(RESERVED & set(inputs)):
            what = f"the parameter name {reserved!r} is taken by the run itself; choose another"
            problems.append(Problem(what, f"pipeline {self.name!r}"))
        if not nodes and not problems:
            problems.append(Problem("it has no steps", f"pipeline {self.name!r}"))
        nodes = settled(nodes, problems)
        problems += type_problems(nodes)
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
