"""Every error that Tailrace raises on purpose: one root, each also the standard library's own kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import RunResult

__all__ = [
    "AmbiguousName",
    "ArtifactNotFound",
    "AssetError",
    "ConfigError",
    "DestinationError",
    "IntegrityError",
    "InvalidKey",
    "LoadError",
    "MaterializationError",
    "MissingExtra",
    "PickleNotAllowed",
    "PipelineError",
    "Problem",
    "RunConflict",
    "RunNotFound",
    "StepFailed",
    "StepSkipped",
    "StepTimeout",
    "StoreError",
    "TailraceError",
    "did_you_mean",
]


class TailraceError(Exception):
    """The root of all errors of Tailrace."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: printed as ``message @ place``."""

    message: str
    place: str

    def __str__(self) -> str:
        return f"{self.message} @ {self.place}"


class _Problems(TailraceError, ValueError):
    """Several problems, reported together."""

    title = "problems"

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{subject}: {count} {self.title}{'' if count == 1 else 's'}\n{lines}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.subject, self.problems)


class PipelineError(_Problems):
    """A pipeline that cannot be planned. ``.problems`` holds everything that is wrong with it."""

    title = "problem"


class ConfigError(_Problems):
    """A configuration that cannot be used. ``.problems`` holds each fault with its file and key path."""

    title = "problem"


class MissingExtra(TailraceError, ImportError):
    """An optional library is needed and not installed. The message prints the install command."""

    def __init__(self, purpose: str, extra: str, module: str) -> None:
        self.purpose, self.extra, self.module = purpose, extra, module
        super().__init__(f"{purpose} needs the package {module!r}. Install it with: pip install 'tailrace[{extra}]'")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.purpose, self.extra, self.module)


class LoadError(TailraceError, ImportError):
    """The file of a pipeline raised while it was imported; what it raised is the ``__cause__``."""


class AssetError(TailraceError, TypeError):
    """A value that an artifact type cannot hold, or a prompt without one of its variables."""


class ArtifactNotFound(TailraceError, LookupError):
    """No committed artifact (one with a manifest) at this path, URI or id."""


class AmbiguousName(TailraceError, LookupError):
    """A key that several artifacts, or runs of several projects, answer to: ``.candidates`` names them."""

    def __init__(self, message: str, *, candidates: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)


class RunNotFound(TailraceError, LookupError):
    """No run of this id is recorded."""


class RunConflict(TailraceError, ValueError):
    """The run id is taken by a run of another pipeline or with other parameters."""


class IntegrityError(TailraceError, ValueError):
    """Stored bytes are not the bytes that were committed. Raised before anything is deserialized."""


class InvalidKey(TailraceError, ValueError):
    """A key that would leave the store's root, or that no store can hold."""


class StoreError(TailraceError, OSError):
    """A store could not do what was asked; what it held before is intact."""


class MaterializationError(TailraceError, TypeError):
    """A value that cannot be stored or restored exactly. Nothing was written."""


class PickleNotAllowed(MaterializationError):
    """Only a format that executes code on loading would do, and the stack does not allow it."""


class DestinationError(TailraceError, RuntimeError):
    """A tracker, registry or deployer refused; names the artifact, the destination and what to do."""


class StepTimeout(TailraceError, TimeoutError):
    """A step ran longer than its ``timeout``."""


class StepFailed(TailraceError, RuntimeError):
    """A step raised, so the run failed. The step's own exception is the ``__cause__``.

    ``.result`` is the run's :class:`~tailrace.RunResult`, with everything that was committed before.
    """

    def __init__(self, message: str, *, step: str = "", result: RunResult | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),), {"step": self.step}  # the result's outputs load from this process's stores


class StepSkipped(TailraceError):
    """A step that does not run, which is no failure: the run goes on and is completed.

    A step may raise it itself, with the reason, when there is nothing to do. It is not tried again; what needs the
    step's output is skipped too, unless that input is optional or one of a list.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the step said so")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest of the known names, else what the known names are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(names)}." if names else ""
