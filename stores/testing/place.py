"""Where a store is proved, what it declares of itself, and the words in which a case says what does not hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..base import ArtifactStore

__all__ = ["UNSAVABLE", "Case", "Place", "hold", "refused", "same"]

UNSAVABLE = threading.Lock()
"""What no materializer stores, pickle neither."""


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Place:
    """An empty place, and how a store is opened there.

    ``open`` makes a new store object at each call, always of this place. ``around`` tells what is beside the place (the
    folder's neighbours, the bucket's other keys): no case may change it. What a store cannot do it declares: with
    ``processes=False`` other processes do not see the place (else ``open`` must be picklable); with
    ``one_winner=False`` concurrent calls of ``create`` may all return True. ``keys`` is how many the listing of many
    keys has.
    """

    open: Callable[[], ArtifactStore]
    around: Callable[[], object] = _nothing
    processes: bool = True
    one_winner: bool = True
    keys: int = 300

    @cached_property
    def store(self) -> ArtifactStore:
        """A store of this place, the same at each call."""
        return self.open()

    @cached_property
    def other(self) -> ArtifactStore:
        """One more store of this place, which knows nothing of what :attr:`store` has done."""
        return self.open()


Case = Callable[[Place], None]
"""One thing that must hold: raises AssertionError where it does not."""


def hold(what: bool, message: str) -> None:
    """An assertion that stands under ``python -O`` too."""
    if not what:
        raise AssertionError(message)


def same(found: Any, expected: Any, what: str) -> None:
    """Check that two values are equal and of one type."""
    hold(type(found) is type(expected) and found == expected, f"{what}: {found!r}, not {expected!r}")


def refused(error: type[Exception], what: str, act: Callable[[], object], *mentions: str) -> None:
    """Check that an act raises this kind of error, in words that mention all of these."""
    try:
        act()
    except error as refusal:
        missing = [text for text in mentions if text not in str(refusal)]
        hold(not missing, f"{what}: the message does not mention {missing}: {refusal}")
    except Exception as other:
        raise AssertionError(f"{what}: {type(other).__name__} instead of {error.__name__}: {other}") from other
    else:
        raise AssertionError(f"{what}: it was not refused.")
