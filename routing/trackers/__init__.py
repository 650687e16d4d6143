"""Experiment trackers: where people compare runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.plugins import component
from .base import Tracker

if TYPE_CHECKING:
    from ..stacks import Stack

__all__ = ["TRACKERS", "Tracker", "build_tracker"]

TRACKERS = {"mlflow": "tailrace.routing.trackers.mlflow:MlflowTracker"}
"""The trackers that come with Tailrace, by type. Others register the entry point group ``tailrace.trackers``."""


def build_tracker(stack: Stack) -> Tracker | None:
    """The tracker of a stack, if it has one. Opens no connection and imports no library of the tracker."""
    if stack.tracker is None:
        return None
    make = component("tailrace.trackers", stack.tracker.type, TRACKERS)
    made: Tracker = make(root=stack.root, project=stack.project, **stack.tracker.options)
    return made
