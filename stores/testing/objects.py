"""Objects at paths: saving, loading, listing, deleting, metadata, by one process and thread."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ArtifactNotFound, IntegrityError, InvalidKey, MaterializationError, TailraceError
from ...core.names import MANIFEST
from ..base import ArtifactStore
from .place import UNSAVABLE, Case, Place, hold, refused, same

__all__ = ["CASES", "ODD_PATHS"]

ODD_PATHS = (
    "with space",
    "ünïcode/日本/🌊",
    "a:b",
    "x" * 300,
    "deep/" * 30 + "end",
    "dot.",
    ".hidden",
    "semi;colon%20",
    "plus+and&=?#",
    "[brackets]{}*",
    "quo'te\"<>|~$!@^`,()",
    "CON",
    "nul.txt",
    "-dash",
    "e\u0301",
    "\u00e9",
)
"""Paths that any store must take. The last two look alike and are different."""

_ROOTS = ("", "/", ".", "./", "..")


def _loads(place: Place) -> None:
    store = place.store
    value = {"a": [1, 2], "b": "text"}
    uri = store.save(value, "models/first")
    same(uri, f"{store.root_uri}/models/first", "What save() returned")
    for what in (uri, "models/first", "models/first/", Path("models/first"), store.ref("models/first")):
        same(store.load(what), value, f"load({what!r})")
        same(place.other.load(what), value, f"load({what!r}) by another")
    if uri.startswith("file://"):
        same(store.load(uri.removeprefix("file://")), value, "load() of the absolute path")
    same(place.other.exists(uri), True, "exists() by URI")
    same(store.exists("models"), False, "exists() of a folder above")


def _absent(place: Place) -> None:
    store = place.store
    same(store.exists("nothing"), False, "exists()")
    same(store.get_metadata("nothing"), None, "get_metadata()")
    same(store.size("nothing"), 0, "size()")
    same(store.list_artifacts(), [], "list_artifacts()")
    store.delete("nothing")
    refused(ArtifactNotFound, "load()", lambda: store.load("nothing"), "'nothing'")
    refused(LookupError, "manifest()", lambda: store.manifest("nothing"), "'nothing'")


def _every_way_in(store: ArtifactStore) -> dict[str, Callable[[str], object]]:
    return {
        "save": lambda path: store.save(1, path),
        "load": store.load,
        "exists": store.exists,
        "delete": store.delete,
        "get_metadata": store.get_metadata,
        "size": store.size,
    }


def _elsewhere(place: Place) -> None:
    store = place.store
    store.save(1, "key")
    root = store.root_uri
    others = [f"{root}x/key", f"{root.rpartition('/')[0]}/key", "file:///elsewhere/key", "s3://elsewhere/key"]
    others += ["gs://elsewhere/key", "az://elsewhere/key", "memory://elsewhere/key", "/elsewhere/key", "ftp://a/b"]
    for path in others:
        for name, act in _every_way_in(store).items():
            refused(InvalidKey, f"{name}({path!r})", lambda act=act, path=path: act(path), path)  # type: ignore[misc]
    for path in (f"{root}/../key", f"{root}/a/%2e%2e/%2e%2e/key", f"{root}//key", f"{root}/a%00"):
        refused(InvalidKey, f"load({path!r})", lambda path=path: store.load(path))  # type: ignore[misc]
    same(store.list_artifacts(), ["key"], "After all that was refused")


def _listing(place: Place) -> None:
    store = place.store
    paths = ["a/one", "a/one/deeper", "ab", "a.b/x", "b/two", "B", "content-x/y", "é", "z/1/2/3/4"]
    for path in reversed(paths):
        store.save(path, path)
    store.stage("never published")
    expected = {
        "": sorted(paths),
        "a": ["a.b/x", "a/one", "a/one/deeper", "ab"],
        "a/": ["a/one", "a/one/deeper"],
        "a/one": ["a/one", "a/one/deeper"],
        "a/one/d": ["a/one/deeper"],
        "a.": ["a.b/x"],
        "a/one/deeper/": [],
        "b/two/manifest": [],
        "content-": ["content-x/y"],
        "z/1/2/3/": ["z/1/2/3/4"],
        "é": ["é"],
        "nothing": [],
    }
    for prefix, found in expected.items():
        same(place.other.list_artifacts(prefix), found, f"list_artifacts({prefix!r})")


def _delete(place: Place) -> None:
    store = place.store
    for path in ("a", "a/b", "a/b/c", "a.b", "ab", "a-b/c"):
        store.save(path, path)
    store.delete("a")
    same(place.other.list_artifacts(), ["a-b/c", "a.b", "ab"], "After deleting 'a'")
    same([key for key in store.walk("a/", contents=True)], [], "What is left of 'a'")  # noqa: C416  # a lazy walk
    store.delete("a")
    store.delete(store.uri("ab"))
    same(store.list_artifacts(), ["a-b/c", "a.b"], "After deleting 'ab' by URI")
    store.save("again", "a")
    same(place.other.load("a"), "again", "Saved where something was deleted")


def _root(place: Place) -> None:
    store = place.store
    store.save(1, "kept")
    for root in (*_ROOTS, store.root_uri, f"{store.root_uri}/"):
        refused(InvalidKey, f"delete({root!r})", lambda root=root: store.delete(root))  # type: ignore[misc]
        refused(InvalidKey, f"save({root!r})", lambda root=root: store.save(2, root))  # type: ignore[misc]
    same(place.other.load("kept"), 1, "After deleting the root was refused")


def _metadata(place: Place) -> None:
    store = place.store
    given: dict[str, dict[str, Any] | None] = {
        "model-1.2": {"v": 1.2, "none": None},
        "model-1.3": {"v": 1.3},
        "a.b": {"which": ("b", 1), "ключ": "значение"},
        "a.c": None,
        "a": {},
        "a/b": {"deep": {"er": [1, {"x": b"bytes"}]}},
    }
    for path, metadata in given.items():
        store.save("the same", path, metadata)
    for path, metadata in given.items():
        same(place.other.get_metadata(path), metadata, f"get_metadata({path!r})")
    store.save("the same", "model-1.2", {"when": math.inf})
    same(store.get_metadata("model-1.2"), {"when": math.inf}, "After saving with other metadata")
    store.save("the same", "model-1.2")
    same(place.other.get_metadata("model-1.2"), None, "After saving without metadata")
    same(store.get_metadata("model-1.3"), {"v": 1.3}, "The neighbour's")


def _again(place: Place) -> None:
    store = place.store
    store.save([1], "a", {"m": 1})
    first = store.ref("a")
    place.other.save([1], "a", {"m": 1})
    same(store.ref("a"), first, "The reference, after saving the same again")
    store.save([2], "a")
    same(place.other.load("a"), [2], "After saving something else")
    refused(IntegrityError, "Loading by the old reference", lambda: store.load(first), "not the one")
    store.save([1], "b")
    same(store.ref("b").digest, first.digest, "The digest of equal content elsewhere")
    hold(store.ref("a").digest != first.digest, "Other content has the same digest.")
    store.save([1], "a")
    same(place.other.load("a"), [1], "After saving the first again")


def _failed(place: Place) -> None:
    store = place.store
    store.save({"fine": 1}, "a", {"m": 1})
    bad = {"fine": 1, "bad": UNSAVABLE}
    refused(MaterializationError, "Saving a lock", lambda: store.save(bad, "a"), "lock")
    refused(MaterializationError, "Saving a lock at a new path", lambda: store.save(bad, "b"))
    refused(TailraceError, "Saving with such metadata", lambda: store.save({"fine": 2}, "a", bad))
    again = place.other
    same((again.load("a"), again.get_metadata("a")), ({"fine": 1}, {"m": 1}), "The version before")
    same(again.list_artifacts(), ["a"], "The listing")
    same(sorted(store.walk()), [f"a/{MANIFEST}"], "The files beside contents")


def _folders(place: Place) -> None:
    store = place.store
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "tree")
        contents = {
            "a.txt": b"a",
            "empty": b"",
            "deep/er/b": b"\0\xff",
            "deep/ünï code": b"c",
            "big": b"12345678" * 900_000,
        }
        for name, data in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        (folder / "nothing in it").mkdir()
        store.save(folder, "tree")
        store.save(folder, "tree")
        store.save(folder / "empty", "file")
    loaded = place.other.load("tree")
    found = {str(file.relative_to(loaded)): file.read_bytes() for file in loaded.rglob("*") if file.is_file()}
    hold(found == contents, f"The folder came back with {sorted(found)}, not with {sorted(contents)}.")
    hold((loaded / "nothing in it").is_dir(), "The empty folder did not come back.")
    same(place.other.load("file").read_bytes(), b"", "The empty file")
    same(store.size("tree"), sum(map(len, contents.values())), "The size of the folder")


def _values(place: Place) -> None:
    store = place.store
    values: list[Any] = [None, "", b"", [], {}, 0, True, "x" * 9_000_000, bytes(range(256)) * 40_000]
    for number, value in enumerate(values):
        uri = store.save(value, f"v/{number}")
        hold(place.other.load(uri) == value, f"A {type(value).__name__} of this store did not come back.")


def _odd(place: Place) -> None:
    store = place.store
    uris = {path: store.save(path, path) for path in ODD_PATHS}
    for path, uri in uris.items():
        same((place.other.load(path), store.load(uri)), (path, path), f"What was saved at {path!r}")
    listed = place.other.list_artifacts()
    same(sorted(store.load(found) for found in listed), sorted(ODD_PATHS), "What the listing leads to")
    same(listed, sorted(listed), "The listing")
    for path in ODD_PATHS:
        store.delete(path)
    same(place.other.list_artifacts(), [], "After deleting them all")


def _size(place: Place) -> None:
    store = place.store
    store.save("x" * 1000, "a/b")
    one = store.size("a/b")
    same(one, sum(entry.size for entry in store.manifest("a/b").files), "size()")
    hold(one >= 1000, f"A text of 1000 characters has {one} bytes.")
    store.save("x" * 1000, "a/b/c")
    store.save("x" * 1000, "ab")
    same(place.other.size("a"), 2 * one, "The size of a folder above")
    store.save("", "a/b")
    hold(store.size("a/b") < 2 * one, "The size counts what was replaced.")


def _materialize(place: Place) -> None:
    store = place.store
    first = store.materialize(1, "model", run_id="r:1", step_name="train")
    second = place.other.materialize(2, "metrics/a", run_id="r:1", step_name="train")
    same(first.rpartition("/")[0], second.rpartition("/")[0], "The folder of one run and step")
    same((store.load(first), store.load(second)), (1, 2), "What was materialized")
    paths = store.list_artifacts()
    same([path.split("/")[0] for path in paths], ["default"] * 2, "The project")
    same([path.split("/")[-3:-1] for path in paths], [["data", "train"]] * 2, "The folders above the artifacts")
    other = store.materialize(3, "model", run_id="r:1", step_name="train", project_name="../p")
    same(place.other.load(other), 3, "In a project with a hostile name")


def _describes(place: Place) -> None:
    store = place.store
    described = store.to_dict()
    hold(isinstance(described.get("type"), str), f"to_dict() has no type: {described}")
    same(json.loads(json.dumps(described)), described, "to_dict() as JSON")
    same(place.other.to_dict(), described, "to_dict() of another of the same place")
    hold("://" in store.root_uri and not store.root_uri.endswith("/"), f"The root's URI is {store.root_uri!r}.")
    hold(store.root_uri.partition("://")[0] == store.scheme, f"The URI {store.root_uri!r} is not of {store.scheme!r}.")


def _validates(place: Place) -> None:
    store = place.store
    same(store.validate(), True, "validate()")
    same(list(place.other.walk(contents=True)), [], "What validate() left")
    store.save(1, "a")
    before = sorted(store.walk(contents=True))
    same(store.validate(), True, "validate() again")
    same(sorted(place.other.walk(contents=True)), before, "What validate() left")


def _leaves_no_scratch(place: Place) -> None:
    store = place.store
    staged = store.stage({"a": 1})
    hold(os.path.isdir(staged.directory), "stage() has no folder.")
    store.discard_staging(staged.directory)
    store.discard_staging(staged.directory)
    hold(not os.path.exists(staged.directory), "discard_staging() left the folder.")
    folders: list[Path] = []
    make = store.new_staging

    def note() -> Path:
        folders.append(make())
        return folders[-1]

    store.new_staging = note  # type: ignore[method-assign]
    for value in ({"a": 1}, {"a": 1}, {"a": 2}):
        store.save(value, "a")
    refused(MaterializationError, "Saving a lock", lambda: store.save(UNSAVABLE, "a"))
    refused(TailraceError, "Saving with such metadata", lambda: store.save(1, "a", {"bad": UNSAVABLE}))
    left = [str(folder) for folder in folders if folder.exists()]
    hold(not left, f"Of {len(folders)} staging folders {len(left)} are left: {left}")


CASES: Mapping[str, Case] = {
    "what save returned is loaded": _loads,
    "an absent artifact is absent everywhere": _absent,
    "a place in another store is refused by name": _elsewhere,
    "a listing is recursive, sorted and by string prefix": _listing,
    "deleting takes what is below and nothing beside": _delete,
    "the root cannot be deleted": _root,
    "metadata belong to one artifact and one save": _metadata,
    "saving again replaces and the same again changes nothing": _again,
    "a failed save leaves the version before": _failed,
    "folders and empty files come back": _folders,
    "empty and large values come back": _values,
    "odd paths are stored and found": _odd,
    "size is that of the content": _size,
    "materialize keeps a run on one date": _materialize,
    "a store says what it is": _describes,
    "a store says that it works and leaves nothing": _validates,
    "no staging folder is left": _leaves_no_scratch,
}
