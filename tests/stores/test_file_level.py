"""Files and folders put into a store and got out again: the same tree, verified, and nothing else touched."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import (
    ArtifactNotFound,
    ArtifactStore,
    FileRef,
    IntegrityError,
    InvalidKey,
    LocalArtifactStore,
    MaterializationError,
    MemoryArtifactStore,
    StoreError,
)
from tailrace.core.names import MANIFEST
from tailrace.stores.manifests import content_digest, dumped

from .buckets import CLASSES, new_bucket

_buckets = itertools.count()

ODD = {
    "plain.txt": b"text",
    "empty": b"",
    "with space/ünï çode.txt": b"odd",
    "manifest.json": b"the user's own",
    "content-0123456789abcdef/x": b"looks like the store's",
    ".hidden": b"h",
    "a:b*c?": b"not for Windows",
    "deep/" * 12 + "leaf": b"deep",
    "x" * 200: b"long",
}


@pytest.fixture(params=["local", "memory", *CLASSES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "local":
        return LocalArtifactStore(tmp_path / "artifacts")
    if request.param == "memory":
        return MemoryArtifactStore(f"files-{next(_buckets)}")
    bucket: ArtifactStore = new_bucket(request, request.param)()
    return bucket


@pytest.fixture
def near(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def grow(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def tree(root: Path) -> dict[str, object]:
    """Everything below a folder: bytes of files, goals of links, None for folders; ``!`` marks what can be executed."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[f"{name}/"] = None
        else:
            found[name + ("!" if os.access(path, os.X_OK) else "")] = path.read_bytes()
    return found


def test_a_file_comes_back_with_its_bytes_and_is_an_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    source = grow(tmp_path, {"in.csv": b"a,b\n1,2\n"}) / "in.csv"
    ref = store.put(source, "data/rows.csv", {"rows": 1})
    assert (ref.kind, ref.size_bytes, ref.metadata) == ("file", 8, {"rows": 1})
    assert ref.uri == f"{store.root_uri}/data/rows.csv"
    assert store.get(ref.uri, tmp_path / "new" / "out.csv").read_bytes() == b"a,b\n1,2\n"
    assert store.exists("data/rows.csv")
    assert store.list_artifacts() == ["data/rows.csv"]
    assert store.get_metadata("data/rows.csv") == {"rows": 1}
    assert store.size("data/rows.csv") == 8
    assert store.manifest("data/rows.csv").digest == ref.digest
    assert store.load("data/rows.csv").read_bytes() == b"a,b\n1,2\n"
    store.delete("data/rows.csv")
    assert store.list_artifacts() == []
    with pytest.raises(ArtifactNotFound):
        store.get("data/rows.csv", tmp_path / "again")


def test_a_folder_comes_back_with_odd_names_empty_folders_links_and_executables(
    store: ArtifactStore, tmp_path: Path
) -> None:
    source = grow(tmp_path / "in", ODD)
    (source / "nothing" / "below").mkdir(parents=True)
    (source / "link").symlink_to("plain.txt")
    (source / "plain.txt").chmod(0o755)
    ref = store.put(source, "models/odd")
    assert (ref.kind, ref.size_bytes) == ("directory", sum(map(len, ODD.values())))
    store.get("models/odd", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)
    assert tree(store.load("models/odd")) == tree(source)


@pytest.mark.parametrize("files", [{}, {"empty": b""}, {"a": b"1", "b/c": b"2"}], ids=["empty", "an empty file", "two"])
def test_a_folder_put_twice_is_the_same_tree_and_not_one_in_the_other(
    store: ArtifactStore, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    (tmp_path / "in").mkdir()
    source = grow(tmp_path / "in", files)
    first = store.put(source, "tree")
    manifest = store.ref("tree")
    assert store.put(f"{source}/", "tree") == first
    assert store.ref("tree") == manifest, "the second time changes nothing"
    for _ in range(2):
        store.get("tree", tmp_path / "out")
        assert tree(tmp_path / "out") == tree(source)


def test_what_is_put_over_a_folder_replaces_it_as_a_whole(store: ArtifactStore, tmp_path: Path) -> None:
    store.put(grow(tmp_path / "one", {"a": b"1", "gone": b"2"}), "tree")
    store.put(grow(tmp_path / "two", {"a": b"3"}), "tree")
    store.get("tree", tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"3"}
    store.put(tmp_path / "two" / "a", "tree")
    store.get("tree", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"3"


def test_the_digest_is_that_of_the_tree_wherever_it_was_and_goes(store: ArtifactStore, tmp_path: Path) -> None:
    files = {"b": b"2", "a/c": b"1"}
    one = store.put(grow(tmp_path / "one", files), "one")
    two = store.put(grow(tmp_path / "elsewhere" / "two", dict(reversed(files.items()))), "deeper/two")
    assert one.digest == two.digest
    others = [{"b": b"2", "a/d": b"1"}, {"b": b"1", "a/c": b"2"}, {"b": b"2"}, {"b": b"2", "a": b"1"}]
    digests = {store.put(grow(tmp_path / f"{n}", other), f"{n}").digest for n, other in enumerate(others)}
    assert len({one.digest, *digests}) == 5


def test_what_else_is_in_a_folder_stays_when_one_is_got_into_it(near: ArtifactStore, tmp_path: Path) -> None:
    near.put(grow(tmp_path / "in", {"a": b"new", "b/c": b"new"}), "tree")
    out = grow(tmp_path / "out", {"a": b"old", "mine": b"m", "b/mine": b"m"})
    near.get("tree", out)
    assert tree(out) == {"a": b"new", "mine": b"m", "b/": None, "b/c": b"new", "b/mine": b"m"}


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_a_damaged_tree_changes_no_file_of_the_target(near: LocalArtifactStore, tmp_path: Path, harm: str) -> None:
    near.put(grow(tmp_path / "in", {"a": b"new", "b": b"newer"}), "tree")
    (stored,) = near.base_path.rglob("content-*/content/b")
    stored.write_bytes(b"newes") if harm == "flipped" else stored.unlink()
    out = grow(tmp_path / "out", {"a": b"old"})
    with pytest.raises(IntegrityError, match="content/b"):
        near.get("tree", out)
    assert tree(out) == {"a": b"old"}
    near.put(tmp_path / "in", "tree")
    near.get("tree", out)
    assert tree(out) == {"a": b"new", "b": b"newer"}


def test_a_link_that_leads_out_is_not_put(near: ArtifactStore, tmp_path: Path) -> None:
    source = grow(tmp_path / "in", {"a": b"1"})
    for goal in ("/etc/passwd", "../secret", "a/../../secret"):
        (source / "link").symlink_to(goal)
        with pytest.raises(MaterializationError, match="leads out"):
            near.put(source, "tree")
        (source / "link").unlink()
    assert near.list_artifacts() == []
    assert list((tmp_path / "artifacts").rglob("*")) == [], "nothing is left aside"


@pytest.mark.parametrize(
    "links", [{"l": "/outside"}, {"l": "../outside"}, {"l": "../outside", "l/x": "a"}, {"d/up": "..", "l": "d/up/../b"}]
)
def test_links_that_somebody_has_forged_make_nothing_outside(
    near: LocalArtifactStore, tmp_path: Path, links: dict[str, str]
) -> None:
    source = grow(tmp_path / "in", {"a": b"1", "d/e": b"2"})
    (source / "l").symlink_to("a")
    near.put(source, "tree")
    manifest = near.manifest("tree")
    spec = {**manifest.spec, "links": links}
    digest = content_digest(manifest.materializer, manifest.materializer_version, spec, manifest.files)
    near.replace(f"tree/{MANIFEST}", dumped(replace(manifest, spec=spec, digest=digest)))
    (tmp_path / "outside").mkdir()
    with pytest.raises(StoreError, match="leads out of its folder"):
        near.get("tree", tmp_path / "out")
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_links_of_the_target_are_not_followed(near: ArtifactStore, tmp_path: Path) -> None:
    near.put(grow(tmp_path / "in", {"a": b"new", "sub/b": b"new"}), "tree")
    outside = grow(tmp_path / "outside", {"b": b"kept", "a": b"kept"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(outside)
    with pytest.raises(StoreError, match="symbolic link"):
        near.get("tree", tmp_path / "out")
    (tmp_path / "out" / "sub").unlink()
    (tmp_path / "out" / "a").symlink_to(outside / "a")
    near.get("tree", tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"new", "sub/": None, "sub/b": b"new"}
    assert tree(outside) == {"a": b"kept", "b": b"kept"}


def test_what_is_in_the_way_is_told_and_nothing_is_written(near: ArtifactStore, tmp_path: Path) -> None:
    near.put(grow(tmp_path / "in", {"a": b"1", "b/c": b"2"}), "tree")
    near.put(tmp_path / "in" / "a", "file")
    for taken in ({"a/x": b"a folder"}, {"b": b"a file"}, {"b/c/x": b"a folder"}):
        out = grow(tmp_path / f"out-{next(_buckets)}", taken)
        before = tree(out)
        with pytest.raises(StoreError, match="is in the way"):
            near.get("tree", out)
        assert tree(out) == before
    with pytest.raises(StoreError, match="is a folder"):
        near.get("file", tmp_path / "in")
    with pytest.raises(StoreError, match="is a file"):
        near.get("tree", tmp_path / "in" / "a")


def test_only_a_file_or_a_folder_is_put_and_got(near: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(MaterializationError, match="no file or directory"):
        near.put(tmp_path / "nothing", "a")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MaterializationError):
        near.put(tmp_path / "pipe", "a")
    with pytest.raises(InvalidKey):
        near.put(tmp_path, "../a")
    near.save({"a": 1}, "value")
    with pytest.raises(StoreError, match="not a file or folder that was put"):
        near.get("value", tmp_path / "out")
    assert near.list_artifacts() == ["value"]


def test_a_path_that_was_saved_is_got_like_one_that_was_put(near: ArtifactStore, tmp_path: Path) -> None:
    source = grow(tmp_path / "in", ODD)
    near.save(source, "saved")
    near.get("saved", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)


def test_a_folder_that_another_makes_meanwhile_is_not_in_the_way(
    near: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near.put(grow(tmp_path / "in", {"a": b"1", "b/c": b"2"}), "tree")
    real = os.path.lexists

    def lexists(path: str | Path) -> bool:
        (tmp_path / "out" / "b").mkdir(parents=True, exist_ok=True)
        return real(path)

    monkeypatch.setattr(os.path, "lexists", lexists)
    near.get("tree", tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"1", "b/": None, "b/c": b"2"}


def test_many_at_once_put_and_get_the_same(near: ArtifactStore, tmp_path: Path) -> None:
    source = grow(tmp_path / "in", {f"{n}": bytes([n]) * 1000 for n in range(20)})
    ready = threading.Barrier(8)

    def put(number: int) -> FileRef:
        ready.wait()
        return near.put(source, "tree")

    with ThreadPoolExecutor(8) as pool:
        (ref,) = set(map(repr, pool.map(put, range(8))))
        list(pool.map(lambda _: near.get("tree", tmp_path / "out"), range(8)))
    assert repr(near.put(source, "tree")) == ref
    assert tree(tmp_path / "out") == tree(source)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 80
)


@given(files=st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=50), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_back(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    paths = sorted(files)
    apart = {
        path: files[path]
        for path in paths
        if not any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in paths)
    }
    (root / "in").mkdir()
    source = grow(root / "in", apart)
    store = LocalArtifactStore(root / "store", durable=False)
    store.put(source, "tree")
    store.get("tree", root / "out")
    assert tree(root / "out") == tree(source)
