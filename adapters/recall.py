"""A task whose step is cached: its key, what the step cache has under that, and what is kept when it is computed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.annotations import asset_type, item_type, pointed
from ..core.errors import ConfigError, MaterializationError, MissingExtra, Problem, TailraceError
from ..core.plan import Node
from ..core.refs import ArtifactRef
from ..core.results import TaskRecord
from ..core.typenames import asset_named
from ..routing.cache.code import code_of
from ..routing.cache.entries import Entry, Kept, Tier
from ..routing.cache.key import artifact_token, task_key, value_token
from ..routing.router import Committed, Copy, CopyFailed, Router, Task
from .inputs import Given

__all__ = ["MODES", "Recall", "look_up"]

MODES = ("on", "refresh", "off")
"""What ``TAILRACE_CACHE`` may be: ``refresh`` computes everything and replaces what was kept, ``off`` keeps nothing."""


def look_up(node: Node, task: Task, inputs: Mapping[str, Given], router: Router) -> Recall | None:
    """Deliver what the step cache has for a task as its outputs; None where the cache is off.

    Raises :class:`~tailrace.MaterializationError` for a parameter without an exact form,
    :class:`~tailrace.PipelineError` for a dependency that is nowhere, and what a destination raises.
    """
    mode = os.environ.get("TAILRACE_CACHE", "").strip() or "on"
    if mode not in MODES:
        problem = Problem(f"It is {mode!r}; give one of {', '.join(MODES)}", "TAILRACE_CACHE")
        raise ConfigError("The step cache cannot be used", [problem])
    if mode == "off":
        return None
    tokens = {name: _token(name, given, node, task, router) for name, given in inputs.items()}
    root = Path(task.run.root)
    key = task_key(node, tokens, project=task.run.project, root=root, allow_pickle=router.stack.allow_pickle)
    recall = Recall(key, node, task, router)
    if mode == "on":
        recall.find()
    else:
        recall.stale.update(tier.name for tier in router.caches)
    return recall


class Recall:
    """One task and its key. ``done`` is what was delivered, by output; empty where the task must be computed."""

    def __init__(self, key: str, node: Node, task: Task, router: Router) -> None:
        self.key = key
        self.done: Mapping[str, Committed] = {}
        self.stale: set[str] = set()  # the caches whose entry is of no use and is replaced
        self._entry: Entry | None = None
        self._found = ""
        self._node = node
        self._task = task
        self._router = router

    def find(self) -> None:
        """Look in the caches, nearest first, and deliver what the first has that can still be read."""
        for place, tier in enumerate(self._router.caches):
            entry = self._read(tier) if tier.reachable else None
            if entry is None or not self._deliver(entry, tier):
                continue
            self._entry, self._found = entry, tier.name
            here = replace(entry, kept=tuple(replace(kept, ref=self.done[kept.output].ref) for kept in entry.kept))
            self._write(here, self._router.caches[:place])
            return

    def recorded(self, record: TaskRecord) -> TaskRecord:
        """The task's record, with what was delivered and where that is from."""
        assert self._entry is not None  # noqa: S101  # whoever asks has looked at `done`
        entry, done = self._entry, self.done
        outputs = [kept.output for kept in entry.kept if not kept.extra]
        origin = {"run_id": entry.run_id, "step": entry.step, "map_index": entry.map_index}
        return replace(
            record,
            outputs={name: done[name].ref for name in outputs},
            extra=tuple(done[kept.output].ref for kept in entry.kept if kept.extra),
            timings={name: done[name].timings for name in outputs},
            destinations={name: done[name].destinations for name in outputs},
            cached={**origin, "cache": self._found, "key": self.key},
        )

    def keep(self, outputs: Mapping[str, Committed], recorded: Mapping[str, Committed], seconds: float) -> None:
        """Write what was computed to every cache; ``recorded`` is what the step recorded beside its outputs."""
        kept = [Kept(name, done.names, done.ref, extra=True) for name, done in recorded.items() if name not in outputs]
        kept += [Kept(name, done.names, done.ref) for name, done in outputs.items()]
        run = self._task.run
        entry = Entry(
            key=self.key,
            project=run.project,
            pipeline=run.pipeline,
            step=self._task.step,
            run_id=run.run_id,
            map_index=run.map_index,
            created=datetime.now(UTC).isoformat(),
            seconds=seconds,
            bytes=sum(int(done.timings.get("bytes", 0)) for done in (*recorded.values(), *outputs.values())),
            kept=tuple(kept),
        )
        self._write(entry, self._router.caches)

    def _read(self, tier: Tier) -> Entry | None:
        """The entry, unless it is damaged or too old."""
        try:
            entry = tier.get(self.key)
        except MissingExtra:  # as with a wrong URI, somebody has to do something
            raise
        except (TailraceError, OSError) as error:
            self._tell(tier, "cannot be read", error)
            self.stale.add(tier.name)
            return None
        limit = self._node.step.cache
        if entry is not None and limit is not True and entry.age > limit:
            self.stale.add(tier.name)
            return None
        return entry

    def _deliver(self, entry: Entry, tier: Tier) -> bool:
        try:
            copies = {
                kept.output: Copy(kept.ref, kept.names, tier.store if tier.shared else self._store(kept.ref))
                for kept in entry.kept
            }
            self.done = self._router.commit(self._task, copies, {})
        except CopyFailed as error:
            self._tell(tier, "has lost an artifact", error)
            self.stale.add(tier.name)
            return False
        return True

    def _store(self, ref: ArtifactRef) -> Any:
        try:
            return self._router.store_of(ref.uri)
        except TailraceError as error:  # the stack has other stores now
            raise CopyFailed(str(error)) from error

    def _write(self, entry: Entry, where: Sequence[Tier]) -> None:
        """A cache that cannot be written to is no reason for a step to fail that has done its work."""
        for tier in where:
            replacing = tier.name in self.stale
            try:
                if tier.reachable:
                    tier.put(self._held(entry, tier, replacing), replacing=replacing)
            except (TailraceError, OSError) as error:
                self._tell(tier, "cannot be written", error)

    def _held(self, entry: Entry, tier: Tier, replacing: bool) -> Entry:
        """The entry as a cache holds it: a shared one with artifacts of its own."""
        if not tier.shared:
            return entry
        stores = [self._router.store_of(kept.ref.uri) for kept in entry.kept]
        copied = (
            tier.copy_in(kept, store, replacing=replacing) for kept, store in zip(entry.kept, stores, strict=True)
        )
        return replace(entry, kept=tuple(copied))

    def _tell(self, tier: Tier, what: str, error: Exception) -> None:
        tier.reachable = not isinstance(error, OSError)
        where = f"The step cache at {tier.store.root_uri} {what} for step {self._task.step!r}"
        warnings.warn(f"{where}: {error} The run goes on without it.", stacklevel=2)


def _token(name: str, given: Given, node: Node, task: Task, router: Router) -> Any:
    """What stands for an input in the key."""
    if given.skipped:
        return ["skipped", code_of(given.value)]
    if given.item:
        try:
            return value_token(given.value, node.name, name)
        except MaterializationError:
            return ["item", artifact_token(given.refs.digest), task.run.map_index]
    if given.refs is None:
        return value_token(given.value, node.name, name)
    return _tokens(given.refs, node.step.annotations.get(name), router)


def _tokens(refs: Any, wanted: Any, router: Router) -> Any:
    if isinstance(refs, list):
        return [_tokens(ref, item_type(wanted), router) for ref in refs]
    if asset_type(wanted) or pointed(wanted) is not None or _is_asset(refs.type):
        return artifact_token(refs.digest, router.store_of(refs.uri).manifest(refs))
    return artifact_token(refs.digest)


def _is_asset(name: str) -> bool:
    try:
        asset_named(name)
    except MaterializationError:
        return False
    return True
