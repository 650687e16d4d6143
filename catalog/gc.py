"""Garbage: what no manifest, run or registry names. Found by reading the stores; removed only when it is old enough.

Nothing is locked, and runs go on meanwhile. Why that is safe is in ``docs/decisions/0015-garbage-collection.md``. In
short: content goes to its place before the manifest that names it, and whoever takes an old content into use again
makes it young. So nothing is removed that was written within the grace period, by the store's own clock, and each thing
is looked at again at the moment of its removal. Manifests go first: what is left by an interruption is garbage.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import orjson

from ..core.names import MANIFEST, content_segment, segment
from ..core.refs import named_artifact
from ..core.results import TaskRecord
from ..stores.base import ArtifactStore
from ..stores.listing import object_key, store_time
from ..stores.manifests import unsealed
from .inventory import UNREADABLE, Inventory, Mark, Pile, at_once, marks
from .journal import RunRecord
from .retention import Pins, Retention, expired
from .rows import Garbage, GcReport

__all__ = ["GRACE", "LOST", "Collector", "Place", "Progress", "quiet"]

GRACE = 3600.0
"""Seconds for which what nobody names is left alone: longer than a save takes from its first byte to its manifest."""

LOST = 7 * 24 * 3600.0
"""Seconds without a sign of life after which a run that has not ended counts as one whose process is gone."""

_ORDER = ("artifact", "content", "object", "staging", "record")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and of how many; 0 where that is not known."""


def quiet(doing: str, done: int, of: int) -> None:
    """No progress is shown."""


@dataclass
class Place:
    """One store as it was found, with the time there."""

    store: ArtifactStore
    now: float
    inventory: Inventory
    marks: list[Mark] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)  # their manifests matter to nobody
    going: dict[str, tuple[Mark, list[str]]] = field(default_factory=dict)  # what a rule lets go, with its contents


class Collector:
    """One collection over some stores, of which ``default`` has the records of the runs.

    ``pinned`` are URIs and content digests that a model registry points at. ``grace`` is in seconds. ``digests`` keeps
    those of all files in memory.
    """

    def __init__(
        self,
        stores: Mapping[str, ArtifactStore],
        *,
        grace: float = GRACE,
        rule: Retention | None = None,
        pinned: Iterable[tuple[str, str]] = (),
        progress: Progress = quiet,
        digests: bool = False,
    ) -> None:
        if grace < 0:
            raise ValueError(f"The grace period cannot be negative: {grace} s")
        self.stores = stores
        self.grace = grace
        self.rule = rule or Retention()
        self.progress = progress
        contents = {f"{uri}/{content_segment(digest)}" for uri, digest in pinned}
        self.pins = Pins(set(), {uri for uri, _ in pinned}, contents)
        self.digests = digests
        self.problems: list[str] = []
        self.places: dict[str, Place] = {}
        self._folders: dict[tuple[str, str], str] = {}  # of the runs, by project and run

    # --- finding ------------------------------------------------------------------------------------------------------

    def find(self) -> list[Garbage]:
        """What is garbage now. Nothing is changed, but for a probe that tells the time of each store."""
        roots = [store.root_uri for store in self.stores.values()]
        for name, store in self.stores.items():
            listed = partial(self._listed, name)
            listed(0)
            place = self.places[name] = Place(store, store_time(store), Inventory.of(store, roots, listed))
            self._read(name, place)
        if "default" in self.places:
            runs = (folder.split("/") for folder in self.places["default"].inventory.runs)
            self._folders = {(of[0], of[2]): "/".join(of) for of in runs}
        if self.rule:
            self._pin_what_runs_name()
        artifacts = [mark for place in self.places.values() for mark in place.marks]
        now = {name: place.now for name, place in self.places.items()}
        for mark in expired(artifacts, self.rule, self.pins, now, self._uri, self._ended):
            self.places[mark.store].going[mark.key] = (mark, [])
        found = [item for name in self.places for item in self._garbage(name)]
        return sorted(found, key=lambda item: (_ORDER.index(item.kind), item.store, item.key))

    def _listed(self, name: str, files: int) -> None:
        self.progress(f"listing {name}", files, 0)

    def _uri(self, mark: Mark) -> str:
        return self.stores[mark.store].uri(mark.key)

    def _read(self, name: str, place: Place) -> None:
        """Read the manifests. Where only contents are looked for, one beside a single content has no choice to tell."""
        artifacts, digests = place.inventory.artifacts, self.digests or bool(place.inventory.objects)
        if not self.rule and not digests:
            contents = Counter(key.rpartition("/")[0] for key in place.inventory.contents)
            place.unread = {key for key in artifacts if contents[key] < 2}
            artifacts = {key: pile for key, pile in artifacts.items() if key not in place.unread}
        for done, mark in enumerate(marks(name, place.store, artifacts, digests=digests), 1):
            if done % 1000 == 0:
                self.progress(f"reading manifests of {name}", done, len(artifacts))
            if isinstance(mark, Mark):
                place.marks.append(mark)
            else:
                place.unreadable.add(mark)
                self.problems.append(f"The manifest of {place.store.uri(mark)!r} cannot be read, so all of it is kept.")

    def _garbage(self, name: str) -> Iterator[Garbage]:
        place = self.places[name]
        found = place.inventory
        named = {mark.key: mark.content for mark in place.marks}
        for key, pile in found.contents.items():
            owner, _, content = key.rpartition("/")
            if owner in place.going:
                place.going[owner][1].append(key)
                found.artifacts[owner].include(pile)
                continue
            kept = named.get(owner) == content or owner in place.unread or owner in place.unreadable
            kept = kept or not self._idle(place, key, pile)
            if not kept and f"{place.store.uri(owner)}/{content}" not in self.pins.contents:
                yield _row("content", name, key, pile, "no manifest names it")
        for key, (mark, _) in place.going.items():
            yield _row("artifact", name, key, found.artifacts[key], _why(mark, place.now))
        if not place.unreadable:  # it may name any of them
            marks_left = (mark for mark in place.marks if mark.key not in place.going)
            used = {object_key(digest) for mark in marks_left for digest in mark.digests}
            for key, pile in found.objects.items():
                if key not in used and pile.newest < place.now - self.grace:
                    yield _row("object", name, key, pile, "no manifest names its bytes")
        for key, pile in found.unfinished.items():
            if pile.newest < place.now - self.grace:
                yield _row("staging", name, key, pile, "left by a process that ended")
        yield from self._claims(name, place)

    def _claims(self, name: str, place: Place) -> Iterator[Garbage]:
        """Names of runs of which there is nothing."""
        folders = {(parts[0], parts[2]) for parts in (folder.split("/") for folder in place.inventory.touched)}
        for key, pile in place.inventory.claims.items():
            parts = key.removesuffix(".json").split("/")
            if len(parts) == 3 and tuple(parts[1:]) not in folders and pile.newest < place.now - self.grace:
                yield _row("record", name, key, pile, "there is nothing of this run")

    def _idle(self, place: Place, key: str, pile: Pile) -> bool:
        """Whether it is old enough, and not below the folder of a run that is running."""
        folder = "/".join(key.split("/")[:3])
        running = folder in place.inventory.runs and not place.inventory.over(folder, place.now - LOST)
        return pile.newest < place.now - self.grace and not running

    # --- what runs name -----------------------------------------------------------------------------------------------

    def _ended(self, mark: Mark) -> bool:
        """Whether the run that made it has ended. What was made by hand, or is of a run of elsewhere, has no end."""
        folder = self._folders.get((segment(mark.project), segment(mark.run_id))) if mark.run_id else None
        if folder is None:
            return False
        place = self.places["default"]
        return place.inventory.over(folder, place.now - LOST)

    def _pin_what_runs_name(self) -> None:
        """Inputs, parameters and outputs of what is running, and what was registered."""
        place = self.places.get("default")
        if place is None:
            return
        for folder in place.inventory.runs:
            if not place.inventory.over(folder, place.now - LOST):
                self._pin_params(place.store, f"{folder}/run.json")
        tasks = place.inventory.tasks
        read = at_once(place.store, partial(_read_or_none, place.store), tasks)
        for done, (key, data) in enumerate(zip(tasks, read, strict=True), 1):
            if done % 1000 == 0:
                self.progress("reading the records of runs", done, len(tasks))
            if data is None:  # forgotten since
                continue
            running = not place.inventory.over(key.rpartition("/steps/")[0], place.now - LOST)
            if not running and b'"registry"' not in data:
                continue
            try:
                task = TaskRecord.from_dict(orjson.loads(data))
            except UNREADABLE:
                self.problems.append(f"The record {place.store.uri(key)!r} cannot be read.")
                continue
            self._pin_task(task, running=running)

    def _pin_params(self, store: ArtifactStore, key: str) -> None:
        try:
            params = RunRecord.from_dict(orjson.loads(store.read(key))).run.params
        except (FileNotFoundError, *UNREADABLE) as error:
            self.problems.append(f"The record {store.uri(key)!r} cannot be read: {error!r}")
            return
        self.pins.uris.update(named[0] for named in map(named_artifact, params.values()) if named)

    def _pin_task(self, task: TaskRecord, *, running: bool) -> None:
        pins = self.pins
        if running:
            pins.ids.update(name for names in task.inputs.values() for name in names)
            pins.ids.update(ref.id for ref in (*task.outputs.values(), *task.extra))
        for output, ref in task.outputs.items():
            registered = task.destinations.get(output, {}).get("registry", "failed")
            if not registered.startswith("failed"):
                pins.uris.add(ref.uri)

    # --- removing -----------------------------------------------------------------------------------------------------

    def remove(self, found: Collection[Garbage]) -> GcReport:
        """Remove what was found, each after another look. What has been taken into use meanwhile is left."""
        begin = time.perf_counter()
        removed: list[Garbage] = []
        for name in self.places:
            place = self.places[name]
            mine = sorted((item for item in found if item.store == name), key=lambda item: _ORDER.index(item.kind))
            for done, (item, gone) in enumerate(zip(mine, self._each(place, mine), strict=True), 1):
                removed += [item] if gone else []
                if done % 100 == 0:
                    self.progress(f"removing from {name}", done, len(mine))
        seconds = time.perf_counter() - begin
        return GcReport(True, tuple(removed), len(found) - len(removed), seconds, tuple(self.problems))

    def _each(self, place: Place, items: list[Garbage]) -> Iterator[bool]:
        """Artifacts, then what they may have shared: each kind is done before the next begins."""
        for kind in dict.fromkeys(item.kind for item in items):
            of_kind = [item for item in items if item.kind == kind]
            yield from at_once(place.store, partial(self._remove, place), of_kind, removing=True)

    def _remove(self, place: Place, item: Garbage) -> bool:
        before = place.now - self.grace
        if item.kind == "artifact":
            return self._remove_artifact(place, *place.going[item.key], before)
        if item.kind == "content" and _names(place.store, *item.key.rsplit("/", 1)):
            return False
        return place.store.collect(item.key, before)

    def _remove_artifact(self, place: Place, mark: Mark, contents: Iterable[str], before: float) -> bool:
        """The manifest, if it is the same and its run is still over; then the contents."""
        store, key = place.store, f"{mark.key}/{MANIFEST}"
        data = _read_or_none(store, key)
        if data is None or hash(data) != mark.seen or not self._still_over(mark) or not store.collect(key, before):
            return False
        if not self._still_over(mark):  # it began again just now, and may have found its artifact here
            store.create(key, data)
            return False
        for content in contents:
            if not _names(store, *content.rsplit("/", 1)):
                store.collect(content, before)
        return True

    def _still_over(self, mark: Mark) -> bool:
        place, folder = self.places["default"], self._folders[segment(mark.project), segment(mark.run_id)]
        if place.inventory.runs[folder]:
            return _read_or_none(place.store, f"{folder}/result.json") is not None
        return all(item.modified < place.now - LOST for item in place.store.stored(f"{folder}/run.json"))


def _names(store: ArtifactStore, key: str, content: str) -> bool:
    """Whether the manifest that is there now names the content; also where that cannot be read."""
    try:
        return bool(unsealed(store.read(f"{key}/{MANIFEST}"))["content"] == content)
    except FileNotFoundError:
        return False
    except UNREADABLE:
        return True


def _read_or_none(store: ArtifactStore, key: str) -> bytes | None:
    try:
        return store.read(key)
    except FileNotFoundError:
        return None


def _row(kind: str, store: str, key: str, pile: Pile, why: str) -> Garbage:
    modified = datetime.fromtimestamp(pile.newest, UTC).isoformat(timespec="seconds")
    return Garbage(kind, store, key, pile.files, pile.size, modified, why)


def _why(mark: Mark, now: float) -> str:
    hours = (now - mark.modified) / 3600
    age = f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours" if hours >= 2 else f"{hours * 60:.0f} min"
    return f"{mark.name} of run {mark.run_id}, {age} old"
