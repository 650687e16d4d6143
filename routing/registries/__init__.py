"""Model registries: named models and prompts, each with versions that stand for stored artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.plugins import component as plug_in
from .base import PromptRegistry, Registry

if TYPE_CHECKING:
    from ..stacks import Component, Stack

__all__ = ["REGISTRIES", "PromptRegistry", "Registry", "build_registry"]

REGISTRIES = {"mlflow": "tailrace.routing.registries.mlflow:MlflowRegistry"}
"""The registries that come with Tailrace, by type. Others register the entry point group ``tailrace.registries``."""


def build_registry(stack: Stack, component: Component | None) -> Registry | None:
    """The registry of a stack that a component describes; without a URI of its own, at the tracker's of its type."""
    if component is None:
        return None
    options = dict(component.options)
    if stack.tracker is not None and stack.tracker.type == component.type:
        options.setdefault("tracking_uri", stack.tracker.options.get("tracking_uri"))
    made: Registry = plug_in("tailrace.registries", component.type, REGISTRIES)(root=stack.root, **options)
    return made
