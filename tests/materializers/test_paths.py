from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tailrace import IntegrityError, MaterializationError
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.registry import load, save
from tailrace.materializers.testing import check_refused


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies go below the test's own folder, where what leaves them is seen."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


class Stored:
    """A path saved in one folder, to load from there as often as one likes."""

    def __init__(self, value: Any, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        writer = FileWriter(folder)
        self.saved = save(value, writer)
        self.entries = {entry.path: entry for entry in writer.finish()}

    def load(self, spec: Any = None) -> Any:
        reader = FileReader(self.folder, self.entries)
        return load(self.saved.materializer, 1, reader, self.saved.spec if spec is None else spec)

    @property
    def content(self) -> list[tuple[str, str]]:
        return [(path, entry.digest) for path, entry in sorted(self.entries.items())]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "my tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "x.txt").write_text("x")
    (root / "manifest.json").write_text("the user's own")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("sub/x.txt")
    (root / "sub" / "up").symlink_to("..")
    (root / "dangling").symlink_to("nothing")
    return root


def listing(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in sorted(root.rglob("*")):
        name = item.relative_to(root).as_posix()
        if item.is_symlink():
            found[name] = ("link", os.readlink(item))
        elif item.is_dir():
            found[name] = "folder"
        else:
            found[name] = (item.read_bytes(), os.access(item, os.X_OK))
    return found


def test_a_file_comes_back_as_a_path_to_its_content_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("1,2")
    stored = Stored(tmp_path / "out.csv", tmp_path / "stored")
    (tmp_path / "out.csv").unlink()
    loaded = stored.load()
    assert loaded.name == "out.csv"
    assert loaded.read_text() == "1,2"
    assert stored.load() == loaded


def test_a_name_that_is_not_safe_in_every_store_comes_back_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "my: réport.html").write_text("<p>")
    stored = Stored(tmp_path / "my: réport.html", tmp_path / "stored")
    assert all(name.isascii() and " " not in name for name in stored.entries)
    assert stored.load().name == "my: réport.html"
    assert stored.load().read_text() == "<p>"


def test_a_link_to_a_file_is_stored_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("1")
    (tmp_path / "link.csv").symlink_to("real.csv")
    loaded = Stored(tmp_path / "link.csv", tmp_path / "stored").load()
    assert (loaded.name, loaded.is_symlink(), loaded.read_text()) == ("real.csv", False, "1")


def test_a_directory_comes_back_with_links_empty_folders_and_executable_files(tree: Path, tmp_path: Path) -> None:
    loaded = Stored(tree, tmp_path / "stored").load()
    assert loaded.name == "my tree"
    assert listing(loaded) == listing(tree)


def test_a_plain_directory_is_handed_out_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "plain" / "sub").mkdir(parents=True)
    (tmp_path / "plain" / "sub" / "a.bin").write_bytes(b"1")
    loaded = Stored(tmp_path / "plain", tmp_path / "stored").load()
    assert loaded == tmp_path / "stored" / "plain"
    assert listing(loaded) == listing(tmp_path / "plain")


def test_an_empty_directory_comes_back(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    loaded = Stored(tmp_path / "empty", tmp_path / "stored").load()
    assert (loaded.is_dir(), list(loaded.iterdir())) == (True, [])


def test_the_same_tree_has_the_same_files_and_spec(tree: Path, tmp_path: Path) -> None:
    one, other = Stored(tree, tmp_path / "1"), Stored(tree, tmp_path / "2")
    again = Stored(one.load(), tmp_path / "3")
    assert one.content == other.content == again.content
    assert one.saved == other.saved == again.saved


def test_files_can_be_members_of_a_dict(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    assert Stored({"report": tmp_path / "a.csv"}, tmp_path / "stored").load()["report"].read_text() == "1"


def test_a_damaged_file_is_not_handed_out(tree: Path, tmp_path: Path) -> None:
    stored = Stored(tree, tmp_path / "stored")
    (tmp_path / "stored" / next(name for name in stored.entries if name.endswith("x.txt"))).write_text("y")
    with pytest.raises(IntegrityError):
        stored.load()


@pytest.mark.parametrize("policy", ["never", "always"])
def test_a_path_to_nothing_is_refused_whatever_the_policy(policy: str, tmp_path: Path) -> None:
    check_refused(
        {"a": tmp_path / "nothing"}, "value at ['a']", "no file or directory", "PurePath", allow_pickle=policy
    )


@pytest.mark.parametrize("target", ["../outside", "/etc/hosts", "sub/up/../outside"])
def test_a_link_that_leaves_the_directory_is_refused(target: str, tree: Path) -> None:
    (tree / "out").symlink_to(target)
    check_refused(tree, "'out'", "leads out of the directory")


def test_a_pipe_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    check_refused(tree, "'pipe'", "neither a file nor a directory")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../escaped"},
        {"name": "/absolute"},
        {"folders": ["../escaped"]},
        {"folders": ["a/../../escaped"]},
        {"links": {"../escaped": "x"}},
        {"links": {"out": "/etc"}},
        {"links": {"out": "../../etc"}},
        {"links": {"a": "sub", "sub/b": "../..", "z": "a/b/x"}},
        {"links": {"x": "a/../../escaped", "a": "sub"}},
        {"links": {"x": "b/../escaped", "b": "."}},
        {"links": {"x": "sub", "x/escaped": "y"}},
    ],
    ids=repr,
)
def test_a_stored_spec_cannot_lead_out_of_the_directory(change: dict[str, Any], tree: Path, tmp_path: Path) -> None:
    stored = Stored(tree, tmp_path / "stored")
    if "name" in change:
        stored.entries = {}
        change = {**change, "files": []}
    with pytest.raises(MaterializationError, match="refused"):
        stored.load({**stored.saved.spec, **change})
    assert not list(tmp_path.rglob("escaped"))
