"""A step: a plain function, what it takes and gives, and how it is to be run."""

from __future__ import annotations

import contextvars
import enum
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from os import PathLike
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from .errors import PipelineError, Problem, did_you_mean
from .resolve import resolved

__all__ = ["TRUTHY", "Condition", "Output", "Step", "Tracer", "jittered", "step", "tracing"]

P = ParamSpec("P")
R = TypeVar("R")

Inputs = Sequence[str] | Mapping[str, str]


class Tracer(Protocol):
    """Receives the calls that a ``@pipeline`` function makes while its plan is drawn up."""

    def call(self, step: Step[Any, Any], fixed: Mapping[str, Any], mapped: Mapping[str, Any]) -> Any:
        """Record one use of a step; returns what stands for its outputs."""
        ...


tracing: contextvars.ContextVar[Tracer | None] = contextvars.ContextVar("tailrace_tracing", default=None)
"""The pipeline that is being drawn up in this context, if one is."""


class _Truthy(enum.Enum):
    TRUTHY = "true"  # the one member of an Enum stays itself when it is pickled

    def __repr__(self) -> str:
        return self.name


TRUTHY = _Truthy.TRUTHY
"""What a condition's value must equal when nothing is named: anything that is true."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a step to run: ``source`` equals ``equals``, or is true."""

    source: Any
    equals: Any = TRUTHY

    def holds(self) -> bool:
        """Whether it holds, of a source that is a plain value."""
        return bool(self.source if self.equals is TRUTHY else self.source == self.equals)


@dataclass(frozen=True, slots=True)
class Output:
    """One declared output: its name, and the annotation of its value where there is one."""

    name: str
    annotation: Any = inspect.Parameter.empty


@dataclass(frozen=True, eq=False)
class Step(Generic[P, R]):
    """A function with a name, named inputs and outputs, and options that every engine maps to its own.

    Called outside a pipeline it is the function. ``retry_delay`` and ``timeout`` are in seconds; a sequence of delays
    is used one after the other, the last one for the rest; each varies at random by the share of it that
    ``retry_jitter`` says. ``inputs`` maps parameters to the outputs they take, or lists the outputs in the order of
    the parameters where the names differ. The steps of a ``group`` are one task.
    ``airflow`` and ``prefect`` are given to that engine's own task as they are.
    """

    fn: Callable[P, R]
    name: str
    inputs: Inputs = ()
    declared_outputs: tuple[str, ...] = ()
    retries: int = 0
    retry_delay: float | tuple[float, ...] = 0.0
    retry_jitter: float = 0.0
    timeout: float | None = None
    cache: bool | float = False
    version: str | None = None
    depends_on: tuple[Any, ...] = ()
    tags: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    pool: str | None = None
    queue: str | None = None
    priority: int | None = None
    owner: str | None = None
    group: str | None = None
    airflow: Mapping[str, Any] = field(default_factory=dict)
    prefect: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    condition: Condition | None = None

    def __post_init__(self) -> None:
        problems = list(_option_problems(self))
        if problems:
            raise PipelineError(f"The step {self.name!r} cannot be used", problems)
        for name in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.fn, name) and name != "__annotations__":
                self.__dict__[name] = getattr(self.fn, name)
        self.__dict__["__wrapped__"] = self.fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; inside a ``@pipeline`` function, record the call instead."""
        tracer = tracing.get()
        if tracer is None:
            if self.condition is not None and not self.condition.holds():
                return None  # type: ignore[return-value]  # as a skipped input arrives downstream
            return self.fn(*args, **{**self.fixed, **kwargs})
        return tracer.call(self, self._named(args, kwargs), {})  # type: ignore[no-any-return]  # stands for an R

    def partial(self, **fixed: Any) -> Step[..., R]:
        """The same step with some arguments settled: those that every item of a :meth:`map` shares."""
        return replace(self, fixed={**self.fixed, **fixed})

    def when(self, source: Any, *, equals: Any = TRUTHY) -> Step[P, R]:
        """The same step, to run only when ``source`` is true, or equals a value; else it is skipped.

        In a pipeline ``source`` is an output or a parameter; of a mapped step's output, each item of a :meth:`map` has
        its own. Outside a pipeline it is a value, and a call whose condition does not hold returns None.
        """
        if self.condition is not None:
            what = "it has a condition already; decide both in one step and take that one's output"
            raise PipelineError(f"The step {self.name!r} cannot be used", [Problem(what, f"step {self.name!r}")])
        return replace(self, condition=Condition(source, equals))

    def map(self, *args: Any, **mapped: Any) -> Any:
        """Run the step once per item: every argument is a list, or an output that is one; several are zipped.

        What all items share goes through :meth:`partial`. Outside a pipeline it is a list of calls, empty where a
        condition does not hold.
        """
        tracer = tracing.get()
        named = self._named(args, mapped, partial=True)
        if tracer is not None:
            return tracer.call(self, self.fixed, named)
        if self.condition is not None and not self.condition.holds():
            return []
        columns = {key: list(value) for key, value in named.items()}
        rows = zip(*columns.values(), strict=True)
        return [self.fn(**{**self.fixed, **dict(zip(columns, row, strict=True))}) for row in rows]  # type: ignore[call-arg]

    def with_options(self, **changes: Any) -> Step[P, R]:
        """The same step with other options, for example another ``name`` or more ``retries``."""
        return replace(self, **_normal(changes, self.name))

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], partial: bool = False) -> dict[str, Any]:
        """The arguments by parameter name, as the function itself would bind them."""
        try:
            bound = self.signature.bind_partial(*args, **kwargs)
            if not partial:
                self.signature.bind(*args, **{**self.fixed, **kwargs})
        except TypeError as error:
            raise PipelineError(
                "The pipeline cannot be planned", [Problem(str(error), f"step {self.name!r}")]
            ) from error
        return {**({} if partial else self.fixed), **bound.arguments}

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature; annotations that cannot be resolved here stay text."""
        return inspect.signature(self.fn)

    @functools.cached_property
    def annotations(self) -> Mapping[str, Any]:
        """The function's annotations by parameter, ``"return"`` among them, resolved one by one where they can be."""
        return {name: resolved(value, self.fn) for name, value in inspect.get_annotations(self.fn).items()}

    @functools.cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The declared outputs, each with its part of the return annotation; one named for the step if none is."""
        names = self.declared_outputs or (self.name,)
        returned = self.annotations.get("return", inspect.Parameter.empty)
        if len(names) == 1:
            return (Output(names[0], returned),)
        parts = typing.get_args(returned) if typing.get_origin(returned) is tuple else ()
        if len(parts) == len(names) and Ellipsis not in parts:
            return tuple(Output(name, part) for name, part in zip(names, parts, strict=True))
        fields = typing.get_type_hints(returned) if hasattr(returned, "__required_keys__") else {}
        return tuple(Output(name, fields.get(name, inspect.Parameter.empty)) for name in names)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters that can be wired, by name: all but ``*args`` and ``**kwargs``."""
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {name: item for name, item in self.signature.parameters.items() if item.kind not in variadic}

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.fn)

    @functools.cached_property
    def code_version(self) -> str:
        """Twelve hex digits over the function's source, or its byte code where there is no source."""
        import hashlib

        fn = inspect.unwrap(self.fn)
        try:
            text = inspect.getsource(fn).encode()
        except (OSError, TypeError):
            code = getattr(fn, "__code__", None)
            text = repr((code.co_code, code.co_consts, code.co_names)).encode() if code else repr(fn).encode()
        return hashlib.sha256(text).hexdigest()[:12]

    @property
    def delays(self) -> tuple[float, ...]:
        """The seconds to wait before each retry; as many as there are retries."""
        given = self.retry_delay if isinstance(self.retry_delay, tuple) else (self.retry_delay,)
        return tuple(given[min(index, len(given) - 1)] for index in range(self.retries))

    def __reduce_ex__(self, protocol: typing.SupportsIndex) -> Any:
        # A decorated function's name leads to the Step, not to the function: by name, like a function, where it can be.
        found: Any = sys.modules.get(self.fn.__module__)
        for part in self.fn.__qualname__.split("."):
            found = getattr(found, part, None)
        return (
            (_by_name, (self.fn.__module__, self.fn.__qualname__)) if found is self else super().__reduce_ex__(protocol)
        )


def jittered(delay: float, share: float) -> float:
    """The delay, longer or shorter at random by up to that share of it."""
    import random

    return delay * random.uniform(max(0.0, 1 - share), 1 + share)  # noqa: S311  # no secret


def _by_name(module: str, qualname: str) -> Any:
    import importlib

    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _option_problems(step: Step[Any, Any]) -> typing.Iterator[Problem]:
    place = f"step {step.name!r}"
    if not callable(step.fn):
        yield Problem(f"a step is made from a function, not from {step.fn!r}", place)
    if step.retries < 0:
        yield Problem(f"retries is {step.retries}; give 0 or more", place)
    if any(delay < 0 for delay in (step.retry_delay if isinstance(step.retry_delay, tuple) else (step.retry_delay,))):
        yield Problem(f"retry_delay is {step.retry_delay}; give seconds, 0 or more", place)
    if step.retry_jitter < 0:
        yield Problem(f"retry_jitter is {step.retry_jitter}; give a share of the delay, 0 or more", place)
    if step.timeout is not None and step.timeout <= 0:
        yield Problem(f"timeout is {step.timeout}; give seconds above 0, or None", place)
    if not isinstance(step.cache, bool) and step.cache <= 0:
        yield Problem(f"cache is {step.cache!r}; give True, False, or seconds above 0", place)
    for key in ("pool", "queue", "owner", "group", "version"):
        name = getattr(step, key)
        if name is not None and not (isinstance(name, str) and name):
            yield Problem(f"{key} is {name!r}; give a name, or None", place)
    if step.priority is not None and (isinstance(step.priority, bool) or not isinstance(step.priority, int)):
        yield Problem(f"priority is {step.priority!r}; give a whole number, or None", place)
    for key in ("resources", "airflow", "prefect"):
        options = getattr(step, key)
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            yield Problem(f"{key} is {options!r}; give a mapping of the names of options to their values", place)
    doubled = sorted({name for name in step.declared_outputs if step.declared_outputs.count(name) > 1})
    if doubled:
        yield Problem(f"the output {doubled[0]!r} is declared twice", place)


def _normal(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options as :class:`Step` holds them: sequences as tuples, ``outputs`` as ``declared_outputs``."""
    normal = dict(options)
    if "outputs" in normal:
        normal["declared_outputs"] = normal.pop("outputs") or ()
    for key in ("inputs", "declared_outputs", "tags", "depends_on"):
        value = normal.get(key)
        if isinstance(value, str | PathLike):
            normal[key] = (value,)
        elif value is None and key in normal:
            normal[key] = ()
        elif key in normal and not isinstance(value, Mapping):
            normal[key] = tuple(typing.cast("Sequence[str]", value))
    if isinstance(normal.get("cache"), timedelta):
        normal["cache"] = normal["cache"].total_seconds()
    delay = normal.get("retry_delay")
    if isinstance(delay, Sequence) and not isinstance(delay, str):
        normal["retry_delay"] = tuple(delay) or 0.0
    for key in ("resources", "airflow", "prefect"):
        if normal.get(key, ()) is None:
            normal[key] = {}
    known = set(Step.__dataclass_fields__) - {"fn", "fixed", "condition"}
    unknown = sorted(set(normal) - known)
    if unknown:
        raise PipelineError(
            f"The step {name!r} cannot be used",
            [Problem(f"unknown option {key!r}.{did_you_mean(key, known)}", f"step {name!r}") for key in unknown],
        )
    return normal


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    inputs: Inputs | str | None = None,
    outputs: Sequence[str] | str | None = None,
    name: str | None = None,
    retries: int = 0,
    retry_delay: float | Sequence[float] = 0.0,
    retry_jitter: float = 0.0,
    timeout: float | None = None,
    cache: bool | float | timedelta = False,
    version: str | None = None,
    depends_on: Sequence[Any] | str | None = None,
    tags: Sequence[str] | None = None,
    resources: Mapping[str, Any] | None = None,
    pool: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    owner: str | None = None,
    group: str | None = None,
    airflow: Mapping[str, Any] | None = None,
    prefect: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a step of a function, bare or with options.

    >>> @step
    ... def double(number: int) -> int:
    ...     return 2 * number
    >>> double(21)
    42

    ``outputs`` names what the function returns: one name, or several for a tuple, list or dict of as many values.
    ``retry_delay`` and ``timeout`` are in seconds; by ``retry_jitter``, a share of it, a delay varies at random.
    ``cache`` takes the outputs of an earlier run where code and inputs are the same: True, or the seconds (or a
    ``timedelta``) for which they are good. ``version`` stands for the code there, and ``depends_on`` adds what the code
    does not show: files, installed packages, functions, values. ``resources``, ``pool``, ``queue``, ``priority`` and
    ``owner`` are declared here for what acts on them: neither the Prefect engine in this process nor inline does.
    Steps of one ``group`` are one task of the engine: small ones, that hand over their values in memory. ``airflow``
    and ``prefect`` are given to that engine's own task as they are, over what is said here. Raises
    :class:`~tailrace.PipelineError` for an impossible option.
    """

    def make(function: Callable[..., Any]) -> Step[..., Any]:
        name = str(options.get("name") or getattr(function, "__name__", type(function).__name__))
        return Step(fn=function, **{**_normal(options, name), "name": name})

    return make if fn is None else make(fn)
