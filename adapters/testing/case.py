"""What the battery runs: a pipeline, its parameters, and what must hold of it on any engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ...core.pipeline import Pipeline

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """A pipeline of the battery, made by importing its module, and what it is run with.

    ``fails`` is a part of the error with which its run ends, empty where it completes, None where that is not known.
    ``needs`` are the packages that it cannot run without.
    """

    pipeline: Pipeline
    params: Mapping[str, Any] = field(default_factory=dict)
    fails: str | None = ""
    needs: tuple[str, ...] = ()

    @property
    def runnable(self) -> bool:
        """Whether what it needs is installed here."""
        return all(find_spec(name) is not None for name in self.needs)
