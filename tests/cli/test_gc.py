"""``tailrace gc`` and ``tailrace catalog stats``: what they show, and that only the asked-for removes anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tailrace import LocalArtifactStore
from tailrace.core.plugins import entry_points

from .conftest import Invoke


@pytest.fixture
def store(mill: Path, project: Path, invoke: Invoke) -> LocalArtifactStore:
    """The default store after a run, with an old content in it; all of it two days old."""
    invoke("run", mill, "--run-id", "r1")
    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    store.save("old", "by/hand")
    store.save("new", "by/hand")
    for folder in (".tailrace/artifacts", ".tailrace/cold"):
        for top, folders, files in os.walk(project / folder, topdown=False):
            for name in [*folders, *files, ""]:
                then = os.stat(f"{top}/{name}").st_mtime - 2 * 86400
                os.utime(f"{top}/{name}", (then, then))
    return store


def shown(text: str) -> Any:
    return json.loads(text)


def test_without_delete_it_says_what_would_go_and_removes_nothing(store: LocalArtifactStore, invoke: Invoke) -> None:
    for options in ([], ["--dry-run"]):
        said = invoke("gc", *options)
        assert "no manifest names it" in said
        assert "1 things" in said
        assert "--delete removes it" in said
    assert shown(invoke("gc", "--json"))["count"] == 1


def test_with_delete_it_removes_and_says_what_it_freed(store: LocalArtifactStore, invoke: Invoke) -> None:
    report = shown(invoke("gc", "--delete", "--json"))
    assert report["deleted"] is True
    assert report["by_kind"]["content"]["count"] == 1
    assert report["bytes"] == report["by_kind"]["content"]["bytes"] > 0
    assert "Nothing to remove" in invoke("gc", "--yes")
    assert store.load("by/hand") == "new"


def test_a_rule_lets_artifacts_of_all_stores_go_and_the_catalog_follows(
    store: LocalArtifactStore, invoke: Invoke
) -> None:
    everything = shown(invoke("artifacts", "ls", "--json"))
    invoke("gc", "--delete", "--older-than", "1d", "--keep-tag", "kept")
    left = shown(invoke("artifacts", "ls", "--json"))
    assert len(everything) > len(left)
    assert {made["name"] for made in left} == {"hand"}
    invoke("catalog", "rebuild")
    assert shown(invoke("artifacts", "ls", "--json")) == left
    assert shown(invoke("runs", "ls", "--json"))[0]["run_id"] == "r1"


def test_young_artifacts_and_the_last_ones_stay(store: LocalArtifactStore, invoke: Invoke) -> None:
    assert shown(invoke("gc", "--older-than", "3d", "--json"))["by_kind"].keys() == {"content"}
    assert shown(invoke("gc", "--older-than", "1d", "--keep-last", "1", "--json"))["by_kind"].keys() == {"content"}
    assert shown(invoke("gc", "--grace", "1w", "--json"))["count"] == 0


@pytest.mark.parametrize(
    "options", [["--grace", "soon"], ["--older-than", "-1d"], ["--dry-run", "--delete"], ["--older-than", "infd"]]
)
def test_what_makes_no_sense_is_refused(options: list[str], project: Path, invoke: Invoke) -> None:
    assert options[-1].strip("-") in invoke("gc", *options, code=2)


def test_statistics_tell_what_is_shared(mill: Path, project: Path, invoke: Invoke) -> None:
    config = (project / "tailrace.yaml").read_text()
    sharing = "artifact_store: {type: local, path: .tailrace/artifacts, deduplicate: true}"
    (project / "tailrace.yaml").write_text(
        config.replace("    artifact_stores:", f"    {sharing}\n    artifact_stores:")
    )
    for run in ("r1", "r2"):
        invoke("run", mill, "--run-id", run)
    stored = shown(invoke("catalog", "stats", "--json"))["stored"]
    assert stored["ratio"] > 1.5
    assert stored["total_bytes"] > stored["actual_bytes"] > 0
    assert (stored["orphans"], stored["orphan_bytes"]) == (0, 0)
    assert "to 1" in invoke("catalog", "stats")


def test_nothing_goes_while_a_registry_of_a_plug_in_cannot_say_what_it_points_at(
    store: LocalArtifactStore, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    site = tmp_path / "site"
    info = site / "shelves-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelves\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tailrace.registries]\nshelf = shelves:Shelf\n")
    (site / "shelves.py").write_text("class Shelf:\n    name = 'shelf'\n    def __init__(self, root): pass\n")
    monkeypatch.syspath_prepend(str(site))
    entry_points.cache_clear()
    config = project / "tailrace.yaml"
    config.write_text(config.read_text().replace("  dev:\n", "  dev:\n    model_registry: {type: shelf}\n"))
    said = invoke("gc", "--delete", code=1)
    entry_points.cache_clear()
    assert "Shelf has no registered()" in said
    assert len(list((project / ".tailrace/artifacts/by/hand").glob("content-*"))) == 2
