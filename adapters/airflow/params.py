"""The parameters of a pipeline as those of a DAG: JSON with a schema there, values of their types here."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from typing import Any

from airflow.sdk import Param as DagParam
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from ...core.errors import PipelineError, Problem
from ...core.plan import Param, Plan

__all__ = ["as_json", "dag_params", "values"]

_RUN_ID = "The logical run id, which names paths and records; Airflow's own if empty."
_STACK = "The stack that says where results go; the one that is active where the tasks run if empty."


def dag_params(plan: Plan, stack: str | None, consumed: Collection[str] = ()) -> dict[str, DagParam]:
    """The parameters for the trigger form, and the two that every run has: ``run_id`` and ``stack``.

    Those that are ``consumed`` come from an asset if nobody gives them.
    Raises :class:`~tailrace.PipelineError` naming every default that is no JSON.
    """
    problems: list[Problem] = []
    own = {name: _dag_param(plan, param, name in consumed, problems) for name, param in plan.params.items()}
    if problems:
        raise PipelineError(f"The pipeline {plan.name!r} cannot become a DAG", problems)
    schema = {"type": ["null", "string"], "section": "Run"}
    return own | {
        "run_id": DagParam(None, description=_RUN_ID, schema=schema),
        "stack": DagParam(stack, description=_STACK, schema=schema),
    }


def values(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of their annotated types from the JSON that Airflow holds; a list becomes the tuple it was, and so on.

    Raises :class:`~tailrace.PipelineError` naming every one that is unknown, missing or no value of its type.
    """
    problems: list[Problem] = []
    made = dict(given)
    for name in set(given) & set(plan.params):
        adapter = _adapter(plan.params[name])
        if adapter is None:
            continue
        try:
            made[name] = adapter.validate_python(given[name])
        except ValidationError as error:
            reasons = "; ".join(detail["msg"] for detail in error.errors(include_url=False))
            problems.append(Problem(f"{given[name]!r} cannot be used: {reasons}", _place(plan, name)))
    if problems:
        raise PipelineError(f"The pipeline {plan.name!r} cannot run", problems)
    return plan.resolve_params(made)


def as_json(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the JSON that a run's ``conf`` holds; :func:`values` is the inverse.

    Raises :class:`~tailrace.PipelineError` naming every one that is no JSON.
    """
    problems: list[Problem] = []
    made = {name: _json(plan, plan.params[name], value, problems) for name, value in given.items()}
    if problems:
        raise PipelineError(f"The pipeline {plan.name!r} cannot run on Airflow", problems)
    return made


def _dag_param(plan: Plan, param: Param, consumed: bool, problems: list[Problem]) -> DagParam:
    schema = _schema(param)
    description = schema.pop("description", None)
    if consumed:
        return DagParam(None, description=f"{description or ''} The newest one if empty.".strip(), schema=schema)
    if param.required:
        return DagParam(description=description, schema=schema)
    return DagParam(_json(plan, param, param.default, problems), description=description, schema=schema)


def _json(plan: Plan, param: Param, value: Any, problems: list[Problem]) -> Any:
    try:
        made = (_adapter(param) or TypeAdapter(Any)).dump_python(value, mode="json", warnings=False)
        made = sorted(made, key=repr) if isinstance(value, set | frozenset) else made  # the same at every parse
        json.dumps(made, allow_nan=False)  # pydantic passes infinities and NaN through; Airflow makes text of them
        return made
    except ValueError:
        what = f"{value!r} is no JSON, and Airflow keeps parameters as JSON; make it in a step instead"
        problems.append(Problem(what, _place(plan, param.name)))
        return None


def _schema(param: Param) -> dict[str, Any]:
    """The JSON schema of the annotation, in the form that Airflow's trigger form knows; ``{}`` allows anything."""
    if param.is_artifact:
        return {"type": ["null", "string", "object"], "description": "An artifact: its URI."}
    adapter = _adapter(param)
    try:
        schema = adapter.json_schema() if adapter else {}
    except PydanticUserError:
        return {}
    schema.pop("default", None)
    members = [_member(schema, member) for member in schema.get("anyOf", ())]
    plain = [member for member in members if member != {"type": "null"}]
    if len(plain) == 1 and len(members) == 2 and isinstance(plain[0].get("type"), str):
        del schema["anyOf"]  # the form shows a field for ["null", "integer"], and raw JSON for anyOf
        schema |= {**plain[0], "type": ["null", plain[0]["type"]]}
        if "const" in schema:
            schema["enum"] = [schema.pop("const")]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _member(schema: Mapping[str, Any], member: dict[str, Any]) -> dict[str, Any]:
    """A member of a union; of one that is written elsewhere, as Enums are, what is written there."""
    name = member.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"][name] if name else member
    return found


def _adapter(param: Param) -> TypeAdapter[Any] | None:
    """What checks and converts values of the annotation; None where nothing is known of it."""
    if param.annotation is inspect.Parameter.empty or isinstance(param.annotation, str) or param.is_artifact:
        return None
    try:
        return TypeAdapter(param.annotation)
    except PydanticUserError:
        return None


def _place(plan: Plan, name: str) -> str:
    return f"pipeline {plan.name!r}, parameter {name!r}"
