"""The contract of a model registry: named models, each with versions that point at artifacts. It may keep prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol, runtime_checkable

from ...core.documents import Prompt
from ...core.refs import ArtifactRef, Manifest, Run

__all__ = ["PromptRegistry", "Registry"]


@runtime_checkable
class Registry(Protocol):
    """Registers stored artifacts as versions of named models. Making one opens no connection and imports no library."""

    name: ClassVar[str]

    def register(
        self, ref: ArtifactRef, manifest: Manifest, *, run: Run, tracker_run: str | None = None
    ) -> tuple[str, str]:
        """The model's name and the version that stands for this artifact with this content, found or made.

        There is one, in however many processes and however often this is called. It points at bytes that exist, and
        carries the artifact's id and digest and the user's version. ``tracker_run`` is the tracker's run, where there
        is one. Raises :class:`~tailrace.DestinationError` when the registry refuses.
        """
        ...

    def registered(self) -> Iterable[tuple[str, str]]:
        """The URI and the content's digest of every artifact that a version points at: none of them is garbage.

        Raises :class:`~tailrace.DestinationError` when the registry cannot be asked.
        """
        ...


@runtime_checkable
class PromptRegistry(Registry, Protocol):
    """A registry that keeps prompts, too, as versions that hold the text: :meth:`registered` need not name those."""

    def register_prompt(self, prompt: Prompt, ref: ArtifactRef, manifest: Manifest, *, run: Run) -> tuple[str, str]:
        """The prompt's name and the version that stands for this artifact with this content, found or made.

        As with :meth:`register`, there is one. What is loaded from it renders to what the prompt renders to. Raises
        :class:`~tailrace.DestinationError` when the registry refuses, or cannot hold the prompt exactly.
        """
        ...
