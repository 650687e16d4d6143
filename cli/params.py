"""``--param k=v``: text to values, by the annotations of the pipeline's parameters."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..core.errors import PipelineError, Problem, did_you_mean
from ..core.pipeline import Pipeline
from ..core.plan import Param

__all__ = ["parse_params"]

_SCALARS = (
    ("null", "~|null|Null|NULL", "~nN"),
    ("null", "", ""),
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
)


def parse_params(pipeline: Pipeline, given: Sequence[str]) -> dict[str, Any]:
    """The values of ``name=text`` pairs. The last one of a name counts.

    Raises :class:`~tailrace.PipelineError` with every pair that is no pair, unknown, of the wrong type or missing.
    """
    place = "--param"
    problems = [Problem(f"{pair!r} is no name=value", place) for pair in given if "=" not in pair]
    texts = {name.strip(): text for name, equals, text in (pair.partition("=") for pair in given) if equals}
    params = pipeline.plan(texts).params
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in params:
            problems.append(Problem(f"unknown parameter {name!r}.{did_you_mean(name, params)}", place))
            continue
        try:
            values[name] = _value(params[name], text)
        except ValueError as error:
            problems.append(Problem(f"{text!r} is no value for {name!r}: {error}", place))
    missing = [name for name, param in params.items() if param.required and name not in texts]
    problems += [Problem(f"no value is given for {name!r} and there is no default", place) for name in missing]
    if problems:
        raise PipelineError(f"The pipeline {pipeline.name!r} cannot run", problems)
    return values


def _value(param: Param, text: str) -> Any:
    """The text as YAML, then as the annotated type; else the text itself as that type. Of an artifact it is the URI."""
    if param.annotation is str:
        return text
    value = _yaml(text)
    if param.annotation is inspect.Parameter.empty or isinstance(param.annotation, str) or param.is_artifact:
        return value
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(param.annotation)
    except PydanticSchemaGenerationError:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        try:
            return adapter.validate_strings(text)  # `007` for a str, `1` for Literal["1"]
        except ValidationError:
            raise ValueError(_reasons(error.errors(include_url=False))) from None


def _reasons(errors: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        "".join([*(f"[{step!r}]" for step in error["loc"]), " " if error["loc"] else "", _lower(error["msg"])])
        for error in errors
    )


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _yaml(text: str) -> Any:
    """A list, mapping or quoted text by the rules of JSON, else of YAML; anything else as one scalar.

    A scalar is null, a boolean, a number or text, by the rules of YAML 1.2. Those of 1.1, which PyYAML follows, make
    text of ``1e-3``, and numbers of ``12:30`` and ``010``. Raises ``ValueError`` for brackets that do not match.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # add_implicit_resolver fills it

    for tag, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), list(first) or [""])
    try:
        if text.startswith(("[", "{", '"', "'")):
            with suppress(ValueError):
                return json.loads(text)  # YAML means something else by the surrogates of JSON
            return yaml.load(text, Loader)  # noqa: S506  # a SafeLoader
        loader = Loader("")
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # of types-PyYAML
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML ({getattr(error, 'problem', None) or error})") from error
