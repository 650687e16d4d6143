"""Every store of ours passes the shipped battery."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace import LocalArtifactStore, MemoryArtifactStore
from tailrace.catalog.sync import NEAR
from tailrace.catalog.testing import check_records, record_cases
from tailrace.stores.testing import Place, check_keys, check_sequences, check_store, store_cases

from .buckets import CLASSES, new_bucket

_names = itertools.count()


def _local(folder: Path) -> Place:
    folder.mkdir()
    opened = functools.partial(LocalArtifactStore, folder / "store")
    return Place(opened, around=lambda: sorted(path for path in folder.iterdir() if path.name != "store"))


def _in_bucket(opened: Callable[..., Any]) -> Place:
    """A prefix of a new bucket, in which other keys are, too."""
    bucket = opened(prefix="")
    for key in ("store.txt", "storey/key", "key", "a/manifest.json"):
        bucket.replace(key, b"not the store's")

    def around() -> list[tuple[str, bytes]]:
        keys = (key for key in bucket.walk(contents=True) if not key.startswith("store/"))
        return sorted((key, bucket.read(key)) for key in keys)

    return Place(functools.partial(opened, prefix="store"), around=around)


@pytest.fixture(params=["local", "memory", *CLASSES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return _local(tmp_path / "around")
    if request.param == "memory":
        return Place(functools.partial(MemoryArtifactStore, f"battery-{next(_names)}"), processes=False)
    return _in_bucket(new_bucket(request, request.param))


@pytest.mark.parametrize("case", store_cases())
def test_a_store_does_what_the_battery_asks(case: str, place: Place) -> None:
    check_store(case, place)


@pytest.mark.parametrize("case", record_cases())
def test_a_store_keeps_the_records_of_runs(case: str, place: Place) -> None:
    check_records(case, place)


def test_a_store_does_what_a_dictionary_does(place: Place) -> None:
    check_sequences(place, sequences=20 if place.store.scheme in NEAR else 3)


def test_no_hostile_key_escapes_or_collides(place: Place) -> None:
    check_keys(place, batches=15 if place.store.scheme in NEAR else 5)


@pytest.mark.slow
def test_ten_thousand_keys_are_listed(place: Place) -> None:
    check_store("many keys are listed", dataclasses.replace(place, keys=10_000))


@pytest.mark.slow
def test_no_key_of_very_many_hostile_ones_escapes_or_collides(place: Place) -> None:
    check_keys(place, batches=1000 if place.store.scheme in NEAR else 40, size=100)
