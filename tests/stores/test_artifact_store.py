"""An artifact store gives back what was saved, whole, or says why not; and nothing is ever half there."""

from __future__ import annotations

import itertools
import os
import string
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import (
    ArtifactNotFound,
    ArtifactRef,
    ArtifactStore,
    ConfigError,
    Dataset,
    IntegrityError,
    InvalidKey,
    LocalArtifactStore,
    MaterializationError,
    MemoryArtifactStore,
    Metrics,
    Model,
    StoreError,
    build_artifact_store,
)
from tailrace.core.names import check_key, segment
from tailrace.core.refs import FileEntry
from tailrace.stores.base import Labels

_buckets = itertools.count()


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "local":
        return LocalArtifactStore(tmp_path / "artifacts")
    return MemoryArtifactStore(f"bucket-{next(_buckets)}")


def test_what_save_returned_is_loaded_by_uri_and_by_path(store: ArtifactStore) -> None:
    uri = store.save({"a": [1, 2]}, "models/first")
    assert uri == f"{store.root_uri}/models/first"
    assert store.load(uri) == store.load("models/first") == store.load(store.ref("models/first")) == {"a": [1, 2]}


def test_a_local_store_loads_by_an_absolute_path_inside_its_root(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "with space")
    store.save(1, "a/b")
    assert store.load(tmp_path / "with space" / "a" / "b") == 1
    assert store.load(f"file://{tmp_path}/with%20space/a/b") == 1


def test_a_local_store_loads_by_a_path_through_the_link_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = LocalArtifactStore(tmp_path / "link" / "store")
    store.save(1, "a")
    assert store.load(tmp_path / "link" / "store" / "a") == store.load(tmp_path / "real" / "store" / "a") == 1


@pytest.mark.parametrize("name", [b"with space", b"per%20cent", "ä".encode(), b"not-utf-8-\xff"])
def test_the_uri_of_a_local_store_builds_that_store(name: bytes, tmp_path: Path) -> None:
    store = LocalArtifactStore(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    uri = store.save(1, "a")
    assert build_artifact_store(store.root_uri).load(uri) == 1


@pytest.mark.parametrize("policy", [False, None, "", "NEVER", "no", True])
def test_a_policy_for_pickle_that_is_none_is_refused(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="one of 'never', 'fallback', 'always'"):
        build_artifact_store(str(tmp_path), allow_pickle=policy)


@pytest.mark.parametrize("path", ["s3://bucket/key", "file:///elsewhere/key", "/elsewhere/key", "memory://other/key"])
def test_a_place_in_another_store_is_refused_by_name(store: ArtifactStore, path: str) -> None:
    with pytest.raises(InvalidKey, match=path):
        store.load(path)


def test_nothing_is_made_before_the_first_write(tmp_path: Path) -> None:
    LocalArtifactStore(tmp_path / "later")
    assert not (tmp_path / "later").exists()


def test_an_absent_artifact_is_absent_everywhere(store: ArtifactStore) -> None:
    assert not store.exists("nothing")
    assert store.get_metadata("nothing") is None
    assert store.size("nothing") == 0
    assert store.list_artifacts() == []
    store.delete("nothing")
    with pytest.raises(ArtifactNotFound, match="'nothing'"):
        store.load("nothing")
    with pytest.raises(LookupError):
        store.manifest("nothing")


def test_a_listing_is_recursive_sorted_and_by_string_prefix(store: ArtifactStore) -> None:
    for path in ["b/two", "a/one", "a/one/deeper", "ab", "content-x/y"]:
        store.save(path, path)
    assert store.list_artifacts() == ["a/one", "a/one/deeper", "ab", "b/two", "content-x/y"]
    assert store.list_artifacts("a") == ["a/one", "a/one/deeper", "ab"]
    assert store.list_artifacts("a/") == ["a/one", "a/one/deeper"]
    assert store.list_artifacts("a/one/d") == ["a/one/deeper"]


def test_deleting_takes_what_is_below_and_nothing_beside(store: ArtifactStore) -> None:
    for path in ["a", "a/b", "a.b", "ab"]:
        store.save(path, path)
    store.delete("a")
    assert store.list_artifacts() == ["a.b", "ab"]


@pytest.mark.parametrize("root", ["", "/", ".", "./"])
def test_the_root_cannot_be_deleted(store: ArtifactStore, root: str) -> None:
    store.save(1, "kept")
    with pytest.raises(InvalidKey):
        store.delete(root)
    with pytest.raises(InvalidKey):
        store.delete(store.root_uri)
    assert store.load("kept") == 1


def test_metadata_belong_to_one_artifact_and_one_save(store: ArtifactStore) -> None:
    store.save(1, "model-1.2", {"v": 1.2, "when": float("nan")})
    store.save(2, "model-1.3", {"v": 1.3})
    store.save(3, "a.b", {"which": ("b", 1)})
    store.save(4, "a.c")
    found = store.get_metadata("model-1.2")
    assert found is not None
    assert found["v"] == 1.2
    assert found["when"] != found["when"]
    assert store.get_metadata("model-1.3") == {"v": 1.3}
    assert store.get_metadata("a.b") == {"which": ("b", 1)}
    assert store.get_metadata("a.c") is None
    store.save(1, "model-1.2")
    assert store.get_metadata("model-1.2") is None


def test_saving_again_replaces_and_the_same_again_changes_nothing(store: ArtifactStore) -> None:
    store.save([1], "a")
    first = store.ref("a")
    store.save([1], "a")
    assert store.ref("a") == first
    store.save([2], "a")
    assert store.load("a") == [2]
    with pytest.raises(IntegrityError, match="not the one that was handed over"):
        store.load(first)


def test_of_writers_that_save_the_same_at_once_all_hand_over_the_manifest_that_is_there(store: ArtifactStore) -> None:
    """As when a task is tried again while its first try lives on."""
    ready = threading.Barrier(2)

    def publish(number: int) -> ArtifactRef:
        staged = store.stage({"x": number})
        ready.wait()
        return store.publish(staged, f"a/{number}", Labels("id", "name"))

    with ThreadPoolExecutor(2) as pool:
        for number in range(50):
            one, other = pool.map(publish, [number, number])
            assert one == other
            assert store.load(one) == {"x": number}


def test_equal_content_has_an_equal_digest_wherever_it_is(store: ArtifactStore, tmp_path: Path) -> None:
    store.save({"a": 1}, "one")
    store.save({"a": 1}, "two", {"some": "metadata"})
    elsewhere = LocalArtifactStore(tmp_path / "elsewhere")
    elsewhere.save({"a": 1}, "three")
    assert store.ref("one").digest == store.ref("two").digest == elsewhere.ref("three").digest
    store.save({"a": 2}, "two")
    assert store.ref("one").digest != store.ref("two").digest


def test_a_failed_save_leaves_the_version_before_loadable(store: ArtifactStore) -> None:
    store.save({"fine": 1}, "a")
    with pytest.raises(MaterializationError, match="lock"):
        store.save({"fine": 1, "bad": threading.Lock()}, "a")
    assert store.load("a") == {"fine": 1}


def test_an_artifact_type_comes_back_as_itself(store: ArtifactStore) -> None:
    store.save(Dataset([{"a": 1}], name="rows", metadata={"source": "here"}), "a")
    loaded = store.load("a")
    assert isinstance(loaded, Dataset)
    assert (loaded.data, loaded.name, loaded.metadata) == ([{"a": 1}], "rows", {"source": "here"})
    assert store.manifest("a").type == "Dataset"


def test_artifact_types_inside_containers_come_back_as_themselves(store: ArtifactStore) -> None:
    saved = {
        "models": [Model({"w": 1.5}, name="first", version="2"), Model((1, 2))],
        "scores": Metrics(accuracy=0.5).at_step(3),
    }
    store.save(saved, "a")
    loaded = store.load("a")
    first, second = loaded["models"]
    assert (type(first), first.data, first.name, first.version) == (Model, {"w": 1.5}, "first", "2")
    assert second.data == (1, 2)
    assert loaded["scores"] == {"accuracy": 0.5}
    assert loaded["scores"].step == 3


def test_materialize_keeps_a_run_on_one_date(store: ArtifactStore) -> None:
    first = store.materialize(1, "model", run_id="r:1", step_name="train")
    second = store.materialize(2, "metrics", run_id="r:1", step_name="train")
    assert first.rpartition("/")[0] == second.rpartition("/")[0]
    assert store.load(first) == 1
    assert [path.split("/")[-3:] for path in store.list_artifacts()] == [
        ["data", "train", "metrics"],
        ["data", "train", "model"],
    ]


def test_size_is_that_of_the_content(store: ArtifactStore) -> None:
    store.save("x" * 1000, "a/b")
    assert store.size("a/b") == store.size("a") == sum(entry.size for entry in store.manifest("a/b").files) > 1000


def test_a_store_says_what_it_is_and_that_it_works(store: ArtifactStore) -> None:
    assert store.to_dict()["type"] in {"local", "memory"}
    assert store.validate() is True
    assert store.list_artifacts() == []


HOSTILE = [
    "../up",
    "a/../../up",
    "/etc/passwd",
    "a//b",
    "a/./b",
    "nul\0",
    "line\nend",
    "half\ud800/a",
    "a/manifest.json",
    "a/content-0123456789abcdef",
    "C:/x",
    "a\\b",
    "_runs/x",
    "a/.tmp-1",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_path_is_refused(store: ArtifactStore, path: str) -> None:
    with pytest.raises(InvalidKey):
        store.save(1, path)
    assert store.list_artifacts() == []


@pytest.mark.parametrize(
    "path", ["with space", "ünïcode", "a:b", "x" * 300, "deep/" * 30 + "end", "dot.", ".hidden", "semi;colon%20"]
)
def test_an_odd_path_is_stored_and_found(store: ArtifactStore, path: str) -> None:
    uri = store.save(path, path)
    assert store.load(path) == store.load(uri) == path
    assert store.load(store.list_artifacts()[0]) == path


def test_a_symbolic_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    store.save(1, "a")
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "store" / "link")
    with pytest.raises(InvalidKey, match="symbolic link"):
        store.save(1, "link/x")
    assert not list((tmp_path / "outside").iterdir())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [_flip, Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes() + b" ")],
)
def test_damage_is_found_before_anything_is_deserialized(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    store = LocalArtifactStore(tmp_path)
    store.save({"a": 1}, "x")
    harm(next(tmp_path.rglob("content-*/*")))
    with pytest.raises(IntegrityError, match="damaged"):
        store.load("x")
    store.save({"a": 1}, "x")
    assert store.load("x") == {"a": 1}, "saving the same again mends it"


def test_a_changed_manifest_is_found(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    store.save({"a": 1}, "x")
    ref = store.ref("x")
    manifest = tmp_path / "x" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("plain", "pickle"))
    with pytest.raises(IntegrityError):
        store.load("x")
    with pytest.raises(IntegrityError):
        store.load(ref)


@given(st.text(), st.text())
def test_two_names_never_become_one_segment(one: str, other: str) -> None:
    for name in (one, other, segment(one), segment(other)):
        made = segment(name)
        assert set(made) <= set(string.ascii_letters + string.digits + "._=-")
        assert made not in {"", ".", ".."}
        assert len(made) <= 255
    assert (segment(one) == segment(other)) == (one == other)
    if segment(one) != one:
        assert segment(segment(one)) != segment(one), "an escaped name is not taken for a plain one"


@given(st.text(alphabet=st.sampled_from("a./\0:\\ é"), max_size=12))
@settings(max_examples=300)
def test_a_key_is_either_refused_or_below_the_root(key: str) -> None:
    try:
        safe = check_key(key)
    except InvalidKey:
        return
    assert os.path.normpath(f"/store/{safe}") == f"/store/{safe}"
    assert check_key(safe) == safe


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("dir", "file://{cwd}/dir"),
        ("./dir", "file://{cwd}/dir"),
        ("~/dir", "file://{home}/dir"),
        ("/abs/dir", "file:///abs/dir"),
        ("file:///abs/a%20b", "file:///abs/a%20b"),
        ("memory://bucket", "memory://bucket"),
    ],
)
def test_a_store_is_built_from_a_uri(uri: str, root: str) -> None:
    found = build_artifact_store(uri).root_uri
    assert found == root.format(cwd=os.path.realpath(os.getcwd()), home=os.path.expanduser("~"))


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown scheme 'ftp'; known: az://, file://, gs://, memory://, s3://"):
        build_artifact_store("ftp://host/x")
    with pytest.raises(ConfigError, match="unknown scheme 'ftp'") as told:
        build_artifact_store("ftp://user:secret@host/x")
    assert "secret" not in str(told.value)


def test_a_save_whose_content_is_deleted_before_its_manifest_is_there_fails(tmp_path: Path) -> None:
    class Slow(LocalArtifactStore):
        def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
            LocalArtifactStore(self.base_path).delete("x")
            super().replace(key, data, durable=durable)

    store = Slow(tmp_path)
    LocalArtifactStore(tmp_path).save("old", "x")
    with pytest.raises(StoreError, match="was deleted while it was saved"):
        store.save("new", "x")
    assert not store.exists("x")


@pytest.mark.parametrize("durable", [True, False])
def test_of_a_save_and_a_delete_at_once_nothing_torn_is_left(durable: bool, tmp_path: Path) -> None:
    def save(number: int) -> None:
        with suppress(StoreError):
            LocalArtifactStore(tmp_path, durable=durable).save(number, "x")

    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            saves = [pool.submit(save, number) for _ in range(2)]
            pool.submit(LocalArtifactStore(tmp_path).delete, "x").result()
            for done in saves:
                done.result()
            with suppress(ArtifactNotFound):
                assert LocalArtifactStore(tmp_path).load("x") == number


def test_a_value_that_is_saved_anew_while_it_is_loaded_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    class Slow(LocalArtifactStore):
        def local_tree(self, key: str, files: tuple[FileEntry, ...]) -> Path:
            other = LocalArtifactStore(self.base_path)
            if other.load("x") == "old":
                other.delete("x")
                other.save("new", "x")
            return super().local_tree(key, files)

    LocalArtifactStore(tmp_path).save("old", "x")
    assert Slow(tmp_path).load("x") == "new"


def test_a_value_that_is_deleted_while_it_is_loaded_is_not_there(tmp_path: Path) -> None:
    class Slow(LocalArtifactStore):
        def local_tree(self, key: str, files: tuple[FileEntry, ...]) -> Path:
            LocalArtifactStore(self.base_path).delete("x")
            return super().local_tree(key, files)

    store = Slow(tmp_path)
    store.save("old", "x")
    with pytest.raises(ArtifactNotFound):
        store.load("x")


def test_a_place_that_is_no_folder_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"cannot write below '.*file.*': Not a directory.*move it"):
        LocalArtifactStore(tmp_path / "file").save(1, "a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_with_the_place_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalArtifactStore(tmp_path)
    store.save("old", "x")
    opened = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda place, flags, *mode: opened(
            "/dev/full" if flags & os.O_CREAT else place, os.O_WRONLY if flags & os.O_CREAT else flags
        ),
    )
    with pytest.raises(StoreError, match=f"cannot write below '{tmp_path}.*No space left on device.*Make room"):
        store.save("new", "x")
    monkeypatch.undo()
    assert store.load("x") == "old"
