"""The decision for one output: a pure function of its type, the rules and the stack. Nothing is done here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ..core.refs import Route
from .stacks import DEFAULT, KEEPS_PROMPTS, Rule, Stack
from .templates import DEFAULT_PATH, render

__all__ = ["decide", "effective_rule", "unmet"]


def effective_rule(types: Sequence[str], stack: Stack) -> tuple[Rule, str]:
    """The rule for a type with every field decided, and the name of the rule that decided.

    Field by field: the rule of the first of the ``types`` that has one, then the ``default:`` rule, then what is built
    in: everything is stored, a Model is registered too, and a Prompt where the stack keeps prompts; Metrics and
    Parameters are logged too. The ``default:`` rule speaks of registration for models and prompts only, of deployment
    for models only, and of the tracker for Metrics and Parameters only.
    """
    model, prompt = "Model" in types, "Prompt" in types
    keeper = stack.prompt_registry if prompt else None
    registered = model or (keeper is not None and keeper.type in KEEPS_PROMPTS)
    logged = "Metrics" in types or "Parameters" in types
    own = next((name for name in types if name != DEFAULT and name in stack.rules), None)
    general = stack.rules.get(DEFAULT, Rule())
    built_in = Rule(DEFAULT, DEFAULT_PATH, registered, False, "manual", {}, None, logged, "fail")
    layers = (
        stack.rules[own] if own else Rule(),
        replace(
            general,
            register=general.register if model or prompt else None,
            deploy=general.deploy if model else None,
            log_to_tracker=general.log_to_tracker if logged else None,
        ),
        built_in,
    )
    decided = own or (DEFAULT if DEFAULT in stack.rules else None)
    return Rule(**{item.name: _first(layers, item.name) for item in fields(Rule)}), (
        f"artifact_routing.{decided}" if decided else "built-in"
    )


def _first(layers: Sequence[Rule], name: str) -> Any:
    """The first layer's value that says something; no thresholds are no saying."""
    values = [getattr(layer, name) for layer in layers]
    return next((value for value in values if value is not None and value != {}), values[-1])


def decide(
    types: Sequence[str],
    *,
    stack: Stack,
    project: str,
    pipeline: str,
    run_id: str,
    date: str,
    step: str,
    output: str,
    map_index: int | None = None,
) -> Route:
    """Where one output goes. ``types`` are the names to look for in rules, most specific first; ``date`` is the run's.

    A destination that the stack does not have is left out: without a registry a Model is stored only.
    """
    rule, decided = effective_rule(types, stack)
    kind = types[0] if types else "Any"
    values = {
        "run_id": run_id,
        "step_name": step,
        "artifact_name": output,
        "artifact_type": kind.lower(),
        "project": project,
        "date": date,
        "pipeline": pipeline,
    }
    registry = stack.prompt_registry if "Prompt" in types else stack.registry
    deployer = stack.deployer if rule.deploy else None
    return Route(
        type=kind,
        store=rule.store or DEFAULT,
        path=render(rule.path or DEFAULT_PATH, values, map_index=map_index),
        tracker=stack.tracker.type if stack.tracker and rule.log_to_tracker else None,
        registry=registry.type if registry and rule.register else None,
        deployer=deployer.type if deployer else None,
        gate=_gate(rule) if deployer else "",
        on_error=rule.on_error or "fail",
        rule=decided,
        format=rule.format,
        compression=rule.compression,
    )


def _gate(rule: Rule) -> str:
    if rule.deploy_condition != "auto" or not rule.deploy_min_metrics:
        return rule.deploy_condition or "manual"
    return "auto: " + ", ".join(f"{name} >= {least:g}" for name, least in rule.deploy_min_metrics.items())


def unmet(thresholds: Mapping[str, float], metrics: Mapping[str, Any]) -> list[str]:
    """Why the gate of an automatic deployment stays shut; nothing if it opens.

    Every named metric has to be there, finite, and at or above its threshold.
    """
    reasons = []
    for name, least in thresholds.items():
        value = _number(metrics.get(name))
        if name not in metrics:
            reasons.append(f"{name} is missing, and at least {least:g} is wanted")
        elif not math.isfinite(value):
            reasons.append(f"{name} is {metrics[name]!r}, which is no finite number")
        elif value < least:
            reasons.append(f"{name} is {value:g}, below {least:g}")
    return reasons


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
