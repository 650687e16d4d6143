"""Model registries: named models, each with versions that point at stored artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.plugins import component
from .base import Registry

if TYPE_CHECKING:
    from ..stacks import Stack

__all__ = ["REGISTRIES", "Registry", "build_registry"]

REGISTRIES = {"mlflow": "tailrace.routing.registries.mlflow:MlflowRegistry"}
"""The registries that come with Tailrace, by type. Others register the entry point group ``tailrace.registries``."""


def build_registry(stack: Stack) -> Registry | None:
    """The registry of a stack, if it has one; one without a URI of its own uses that of a tracker of its type."""
    if stack.registry is None:
        return None
    options = dict(stack.registry.options)
    if stack.tracker is not None and stack.tracker.type == stack.registry.type:
        options.setdefault("tracking_uri", stack.tracker.options.get("tracking_uri"))
    made: Registry = component("tailrace.registries", stack.registry.type, REGISTRIES)(root=stack.root, **options)
    return made
