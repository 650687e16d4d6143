"""Every store of ours passes the shipped battery."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import pytest

from tailrace import LocalArtifactStore, MemoryArtifactStore
from tailrace.stores.testing import Place, check_keys, check_sequences, check_store, store_cases

_buckets = itertools.count()


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        around = tmp_path / "around"
        around.mkdir()
        opened = functools.partial(LocalArtifactStore, around / "store")
        return Place(opened, around=lambda: sorted(path for path in around.iterdir() if path.name != "store"))
    return Place(functools.partial(MemoryArtifactStore, f"battery-{next(_buckets)}"), processes=False)


@pytest.mark.parametrize("case", store_cases())
def test_a_store_does_what_the_battery_asks(case: str, place: Place) -> None:
    check_store(case, place)


def test_a_store_does_what_a_dictionary_does(place: Place) -> None:
    check_sequences(place)


def test_no_hostile_key_escapes_or_collides(place: Place) -> None:
    check_keys(place)
