"""Which committed artifacts a rule lets go. Decides only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from .inventory import Mark

__all__ = ["Pins", "Retention", "expired"]


@dataclass(frozen=True, slots=True)
class Retention:
    """What is let go: what is older than ``older_than`` seconds *and* not among the ``keep_last`` of its series.

    A series is what has one project, pipeline, name and item. ``keep_tags`` protect: ``key`` or ``key=value``. Without
    ``older_than`` and ``keep_last`` nothing is let go.
    """

    older_than: float | None = None
    keep_last: int | None = None
    keep_tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.keep_tags, str):
            raise ValueError(f"keep_tags is a text, and would protect nothing; write ({self.keep_tags!r},)")
        if (self.older_than or 0) < 0 or (self.keep_last or 0) < 0:
            raise ValueError(f"older_than and keep_last cannot be negative: {self}")

    def __bool__(self) -> bool:
        return self.older_than is not None or self.keep_last is not None

    def tagged(self, tags: Mapping[str, str]) -> bool:
        """Whether an artifact's tags protect it."""
        return any(tag in tags or tag in {f"{key}={value}" for key, value in tags.items()} for tag in self.keep_tags)


@dataclass(slots=True)
class Pins:
    """What is kept whatever its age: artifacts by id and by URI, and contents by URI (``.../content-...``)."""

    ids: set[str]
    uris: set[str]
    contents: set[str]


def expired(
    artifacts: Collection[Mark],
    rule: Retention,
    pins: Pins,
    now: Mapping[str, float],
    uri: Callable[[Mark], str],
    ended: Callable[[Mark], bool],
) -> list[Mark]:
    """The artifacts that are let go: of runs that have ended, not pinned, and no parent of what the rule keeps.

    ``now`` is the time by each store's own clock.
    """
    if not rule:
        return []
    last = _last(artifacts, rule)
    going: dict[tuple[str, str], Mark] = {}
    for made in artifacts:
        old = rule.older_than is None or made.modified < now[made.store] - rule.older_than
        if old and made.place not in last and made.id not in pins.ids and not rule.tagged(made.tags) and ended(made):
            place = uri(made)
            if place not in pins.uris and f"{place}/{made.content}" not in pins.contents:
                going[made.place] = made
    needed = {parent for made in artifacts if made.place not in going for parent in made.parents}
    return [made for made in going.values() if made.id not in needed]


def _last(artifacts: Iterable[Mark], rule: Retention) -> set[tuple[str, str]]:
    """The places of the last of each series."""
    if rule.keep_last is None:
        return set()
    series: dict[tuple[str, str, str, int | None], list[Mark]] = {}
    for made in artifacts:
        series.setdefault((made.project, made.pipeline, made.name, made.item), []).append(made)
    kept: set[tuple[str, str]] = set()
    for versions in series.values():
        versions.sort(key=lambda made: (made.created, made.id), reverse=True)  # a copied one is as old as it was
        kept.update(made.place for made in versions[: rule.keep_last])
    return kept
