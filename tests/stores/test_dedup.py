"""Equal bytes are stored once where the setting says so, stay readable by everybody, and go when nobody names them."""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace import ArtifactNotFound, ArtifactStore, LocalArtifactStore, MemoryArtifactStore
from tailrace.catalog.gc import Collector
from tailrace.catalog.index import Catalog
from tailrace.catalog.rows import Garbage, GcReport
from tailrace.core.names import MANIFEST, OBJECTS
from tailrace.stores.listing import object_key, store_time
from tailrace.stores.testing import Place, check_sequences, check_store, store_cases

from .buckets import CLASSES, new_bucket

_names = itertools.count()
Open = Callable[..., ArtifactStore]


@pytest.fixture(params=["local", "memory", *CLASSES])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the store of one new place; ``deduplicate=`` is the setting."""
    if request.param == "local":
        return functools.partial(LocalArtifactStore, tmp_path / "store")
    if request.param == "memory":
        return functools.partial(MemoryArtifactStore, f"dedup-{next(_names)}")
    return new_bucket(request, request.param)


def collect(store: ArtifactStore) -> GcReport:
    """A collection without a grace period, once everything is older than now by the store's own clock."""
    newest = max((item.modified for item in store.stored()), default=0.0)
    deadline = time.monotonic() + 10
    while store_time(store) <= newest:
        assert time.monotonic() < deadline
    collector = Collector({"default": store}, grace=0)
    return collector.remove(collector.find())


def kinds(items: tuple[Garbage, ...]) -> list[str]:
    return sorted(item.kind for item in items)


VALUE = {"text": "x" * 20_000, "bytes": b"y" * 30_000}


def test_what_was_saved_with_the_setting_is_read_without_it_and_the_other_way_round(opened: Open) -> None:
    plain, sharing = opened(), opened(deduplicate=True)
    plain.save(VALUE, "a")
    sharing.save(VALUE, "b")
    for store in (plain, sharing, opened(), opened(deduplicate=True)):
        assert store.load("a") == store.load("b") == VALUE
        assert store.list_artifacts() == ["a", "b"]
        assert store.manifest("a").digest == store.manifest("b").digest
        assert sorted(store.walk()) == [f"a/{MANIFEST}", f"b/{MANIFEST}"]


def test_equal_bytes_are_stored_once_and_the_statistics_say_so(opened: Open, tmp_path: Path) -> None:
    store = opened(deduplicate=True)
    for number in range(10):
        store.save(VALUE, f"a/{number}")
    with Catalog(f"sqlite:///{tmp_path}/catalog.db", {"default": store}) as catalog:
        stats = catalog.get_stats()
    once = store.size("a/0")
    assert (stats.artifacts, stats.total_bytes, stats.actual_bytes) == (10, 10 * once, once)
    assert stats.unique_files == len(store.manifest("a/0").files)
    assert (round(stats.ratio), stats.orphans, sum(stats.by_type.values())) == (10, 0, 10)


def test_without_the_setting_nothing_is_shared(opened: Open, tmp_path: Path) -> None:
    store = opened()
    for number in range(3):
        store.save(VALUE, f"a/{number}")
    with Catalog(f"sqlite:///{tmp_path}/catalog.db", {"default": store}) as catalog:
        stats = catalog.get_stats()
    assert stats.actual_bytes == stats.total_bytes == 3 * store.size("a/0")
    assert not [item for item in store.stored() if item.key.startswith(f"{OBJECTS}/")]


def test_deleting_one_of_two_leaves_the_other_and_the_last_one_takes_the_bytes_along(opened: Open) -> None:
    store = opened(deduplicate=True)
    store.save(VALUE, "a")
    store.save(VALUE, "b")
    store.delete("a")
    assert kinds(collect(store).items) == []
    assert opened().load("b") == VALUE
    files = len(store.manifest("b").files)
    store.delete("b")
    report = collect(store)
    assert kinds(report.items) == ["object"] * files
    assert report.bytes >= 50_000
    assert list(store.stored()) == []


def test_old_content_of_a_path_is_collected_and_the_new_one_is_not(opened: Open) -> None:
    for store in (opened(), opened(deduplicate=True)):
        store.save("old" * 1000, "a")
        store.save("new" * 1000, "a")
        store.save("old" * 1000, "b")
        report = collect(store)
        assert set(kinds(report.items)) <= {"content", "object"}
        assert opened().load("a") == "new" * 1000
        assert opened().load("b") == "old" * 1000
        assert collect(store).items == ()
        store.delete("a")
        store.delete("b")
        collect(store)


def test_content_that_is_saved_again_after_it_was_found_is_left(opened: Open) -> None:
    store = opened()
    store.save("old", "a")
    store.save("new", "a")
    newest = max(item.modified for item in store.stored())
    deadline = time.monotonic() + 10
    while store_time(store) <= newest:
        assert time.monotonic() < deadline
    collector = Collector({"default": store}, grace=0)
    found = collector.find()
    assert kinds(tuple(found)) == ["content"]
    staged = opened().stage("old")
    key = found[0].key
    opened().put_tree(staged.directory, key, staged.files)  # its manifest is still to come
    report = collector.remove(found)
    assert (report.items, report.left) == ((), 1)
    store.save("old", "a")
    assert store.load("a") == "old"


def test_damage_of_a_shared_file_is_found_and_mended_by_saving_again(opened: Open) -> None:
    store = opened(deduplicate=True)
    store.save("text" * 1000, "a")
    (entry,) = store.manifest("a").files
    store.replace(object_key(entry.digest), b"damaged")
    store.save("text" * 1000, "b")
    assert opened(deduplicate=True).load("b") == "text" * 1000


def test_an_mlflow_model_is_whole_in_its_folder(opened: Open) -> None:
    store = opened(deduplicate=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        folder.mkdir()
        (folder / "MLmodel").write_text("flavors: {}")
        (folder / "weights").write_bytes(b"w" * 1000)
        store.save(folder, "model")
    below = [key for key in store.walk("model/", contents=True) if key.endswith(("MLmodel", "weights"))]
    assert len(below) == 2


@pytest.mark.parametrize("case", store_cases())
def test_a_local_store_that_shares_does_what_the_battery_asks(case: str, tmp_path: Path) -> None:
    check_store(case, Place(functools.partial(LocalArtifactStore, tmp_path / "store", deduplicate=True)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    "case", [case for case in store_cases() if "damaged content" not in case]
)  # the bytes are not below the artifact's folder, where the case looks for them
def test_a_bucket_that_shares_does_what_the_battery_asks(case: str, kind: str, request: pytest.FixtureRequest) -> None:
    check_store(case, Place(functools.partial(new_bucket(request, kind), deduplicate=True)))


def test_a_store_that_shares_does_what_a_dictionary_does(tmp_path: Path) -> None:
    check_sequences(Place(functools.partial(LocalArtifactStore, tmp_path / "store", deduplicate=True)), sequences=10)


# --- on a disk --------------------------------------------------------------------------------------------------------


def test_equal_files_are_hard_links_to_one(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path, deduplicate=True)
    store.save("text" * 1000, "a")
    store.save("text" * 1000, "b")
    paths = [tmp_path / path / store.manifest(path).content / store.manifest(path).files[0].path for path in ("a", "b")]
    assert os.path.samefile(*paths)
    assert paths[0].stat().st_nlink == 3


def test_where_a_file_can_have_no_more_links_another_copy_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalArtifactStore(tmp_path, deduplicate=True)
    store.save("text", "a")
    real = os.link

    def full(source: Any, target: Any) -> None:
        if f"/{OBJECTS}/" in str(source):
            raise OSError(31, "Too many links")
        real(source, target)

    monkeypatch.setattr(os, "link", full)
    store.save("text", "b")
    assert store.load("a") == store.load("b") == "text"


def test_a_folder_that_is_no_key_of_a_user_holds_what_is_shared(opened: Open) -> None:
    store = opened(deduplicate=True)
    with pytest.raises(ValueError, match="which the store itself uses"):
        store.save(1, f"{OBJECTS}/a")
    with pytest.raises(ArtifactNotFound):
        store.load("a")
