"""``artifacts cp`` and ``mv``: the same artifact in another stack's store, whole, and the catalogs know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tailrace import ArtifactStore, LocalArtifactStore
from tailrace.stores import transfer

from .conftest import Invoke, Json


@pytest.fixture(autouse=True)
def a_run(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "--run-id", "r1")


def without_place(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in {"uri", "store"}}


def by_output(rows: list[dict[str, Any]]) -> dict[tuple[str, Any], dict[str, Any]]:
    return {(row["output"], row["map_index"]): without_place(row) for row in rows}


def test_a_run_s_artifacts_are_copied_with_their_digests_producers_and_lineage(rows: Json, invoke: Invoke) -> None:
    assert invoke("artifacts", "cp", "--run", "r1", "--to", "other") == "copied 5 artifacts to the stack 'other'\n"
    here, there = rows("artifacts", "ls"), rows("artifacts", "ls", "--stack", "other")
    assert by_output(there) == by_output(here)
    assert len(there) == 5
    (label,) = (row for row in there if row["output"] == "label")
    graphs = [json.loads(invoke("lineage", label["id"], "--format", "json", *at)) for at in ((), ("--stack", "other"))]
    assert [{without["output"] for without in graph["nodes"]} for graph in graphs] == [{"grain", "sack", "label"}] * 2
    assert len(graphs[0]["edges"]) == len(graphs[1]["edges"]) == 4
    assert invoke("artifacts", "verify", "--all", "--stack", "other").startswith("5 artifacts are sound")


def test_copying_again_copies_nothing_and_mends_what_was_damaged(invoke: Invoke, rows: Json, project: Path) -> None:
    copied = ("artifacts", "cp", "r1/harvest/weight", "--to", "other")
    assert [row["state"] for row in rows(*copied)] == ["copied"]
    assert [row["state"] for row in rows(*copied)] == ["present"]
    assert "1 were there already" in invoke(*copied)
    (content,) = (project / "elsewhere").rglob("content-*/*")
    content.write_bytes(b"{}")
    assert [row["state"] for row in rows(*copied)] == ["copied"]
    (manifest,) = (project / "elsewhere").rglob("manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b"weight", b"height"))
    assert [row["state"] for row in rows(*copied)] == ["copied"]
    assert invoke("artifacts", "verify", "--all", "--stack", "other").startswith("1 artifacts are sound")


def test_moving_deletes_here_what_is_there_and_both_catalogs_know(invoke: Invoke, rows: Json, project: Path) -> None:
    before = by_output(rows("artifacts", "ls"))
    moved = ("artifacts", "mv", "r1/harvest/weight", "r1/harvest/grain", "--to", "other")
    assert [row["state"] for row in rows(*moved)] == ["moved", "moved"]
    here, there = by_output(rows("artifacts", "ls")), by_output(rows("artifacts", "ls", "--stack", "other"))
    assert here | there == before
    assert {output for output, _ in there} == {"weight", "grain"}
    assert not list((project / ".tailrace").rglob("harvest/*/manifest.json"))
    assert not list((project / ".tailrace").rglob("harvest/*/content-*"))


def test_moving_what_had_been_copied_before_deletes_it_here(rows: Json) -> None:
    rows("artifacts", "cp", "r1/harvest/weight", "--to", "other")
    assert [row["state"] for row in rows("artifacts", "mv", "r1/harvest/weight", "--to", "other")] == ["removed"]
    assert len(rows("artifacts", "ls")) == 4


def test_a_move_that_was_interrupted_is_finished_by_the_same_command(invoke: Invoke, rows: Json, project: Path) -> None:
    invoke("artifacts", "cp", "--run", "r1", "--to", "other")
    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    store.delete(store.list_artifacts()[0])  # so far had it come
    assert "5 were there already" in invoke("artifacts", "mv", "--run", "r1", "--to", "other")
    assert rows("artifacts", "ls") == []


def test_what_a_run_names_and_is_gone_does_not_keep_the_rest(invoke: Invoke, rows: Json, project: Path) -> None:
    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    store.delete(store.list_artifacts()[0])
    told = invoke("artifacts", "cp", "--run", "r1", "--to", "other")
    assert told == "copied 4 artifacts to the stack 'other'; 1 are in neither any more\n"


def test_what_is_damaged_here_is_neither_copied_nor_deleted(invoke: Invoke, rows: Json, project: Path) -> None:
    (content,) = (project / ".tailrace").rglob("harvest/weight/content-*/*")
    content.write_bytes(b"{}")
    told = invoke("artifacts", "mv", "r1/harvest/grain", "r1/harvest/weight", "--to", "other", code=1)
    assert "damaged" in told
    assert len(rows("artifacts", "ls")) == 5, "of several, none is deleted before all have arrived"
    assert not list((project / "elsewhere").rglob("harvest/weight/manifest.json"))


def test_another_artifact_in_the_place_stays(invoke: Invoke, rows: Json, project: Path) -> None:
    (row,) = (row for row in rows("artifacts", "ls") if row["output"] == "weight")
    other = LocalArtifactStore(project / "elsewhere")
    key = row["uri"].partition("/artifacts/")[2]
    other.save("somebody's", key)
    told = invoke("artifacts", "mv", "r1/harvest/weight", "--to", "other", code=1)
    assert "Another artifact is at" in told
    assert other.load(key) == "somebody's"
    assert len(rows("artifacts", "ls")) == 5


def test_a_copy_that_arrives_damaged_is_not_committed(tmp_path: Path) -> None:
    class Rotten(LocalArtifactStore):
        def put_tree(self, staging: Path, key: str, files: Any) -> None:
            super().put_tree(staging, key, files)
            (self.base_path / key / files[0].path).write_bytes(b"rotten")

    source: ArtifactStore = LocalArtifactStore(tmp_path / "here")
    target = Rotten(tmp_path / "there")
    source.save([1, 2], "a/b")
    with pytest.raises(Exception, match="arrived damaged"):
        transfer.copy(source, "a/b", target)
    assert target.list_artifacts() == []


def test_what_is_below_an_artifact_that_moves_stays(tmp_path: Path) -> None:
    source, target = LocalArtifactStore(tmp_path / "here"), LocalArtifactStore(tmp_path / "there")
    for key in ("a", "a/b"):
        source.save(key, key)
    assert transfer.copy(source, "a", target) is True
    transfer.remove_copied(source, "a", target)
    transfer.remove_copied(source, "a", target)
    assert (source.list_artifacts(), target.list_artifacts()) == (["a/b"], ["a"])
    source.save("new", "a")
    with pytest.raises(Exception, match="saved anew after"):
        transfer.remove_copied(source, "a", target)
    assert source.load("a") == "new"


def test_what_cannot_be_meant_is_a_usage_error(invoke: Invoke) -> None:
    assert "the same place" in invoke("artifacts", "cp", "r1/harvest/weight", "--to", "dev", code=2)
    assert "--run" in invoke("artifacts", "mv", "--to", "other", code=2)
    assert "nowhere" in invoke("artifacts", "cp", "r1/harvest/weight", "--to", "nowhere", code=2)
