"""The named cases, and running one of them."""

from __future__ import annotations

from collections.abc import Mapping

from . import damage, files, objects, races
from .place import Case, Place, same

__all__ = ["CASES", "check_store", "store_cases"]

CASES: Mapping[str, Case] = {**files.CASES, **objects.CASES, **damage.CASES, **races.CASES}
"""Every case by name."""


def store_cases() -> list[str]:
    """The names of the cases, for ``pytest.mark.parametrize``."""
    return list(CASES)


def check_store(name: str, place: Place) -> None:
    """Run a named case in an empty place. Raises AssertionError saying what does not hold."""
    before = place.around()
    CASES[name](place)
    same(place.around(), before, "What is around the place was changed")
