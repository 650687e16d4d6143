"""``runs``, ``artifacts``, ``lineage`` and ``catalog``: what the store holds, told to people and scripts."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli, Invoke, Json


@pytest.fixture(autouse=True)
def two_runs(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "--run-id", "r1")
    invoke("run", "mill", "--run-id", "r2", "-p", "shares=[0.25, 0.5]")


def flat(items: list[dict[str, Any]]) -> bool:
    return all(not isinstance(value, dict | list) for item in items for value in item.values())


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_filtered(invoke: Invoke, rows: Json) -> None:
    invoke("run", "mill", "--run-id", "r3", "-p", "stop=true", code=1)
    listed = rows("runs", "ls")
    assert [row["run_id"] for row in listed] == ["r3", "r2", "r1"]
    assert flat(listed)
    assert [row["run_id"] for row in rows("runs", "ls", "--state", "failed")] == ["r3"]
    assert [row["run_id"] for row in rows("runs", "ls", "--pipeline", "mill", "--limit", "1")] == ["r3"]
    assert rows("runs", "ls", "--pipeline", "other") == []
    assert "'completed'" in invoke("runs", "ls", "--state", "done", code=2)
    assert "r3" in invoke("runs", "ls")


def test_a_run_shows_what_every_output_cost(invoke: Invoke, rows: Json) -> None:
    shown = rows("runs", "show", "r1")
    task = next(task for task in shown["tasks"] if task["step"] == "harvest")
    assert task["compute"] > 0
    assert {"bytes", "save", "digest", "publish"} <= set(task["timings"]["grain"])
    text = invoke("runs", "show", "r1")
    for word in ("Load", "Compute", "Save", "Digest", "Publish", "grind[1].sack", "shares=[0.25, 0.75]"):
        assert word in text


def test_the_difference_of_two_runs_is_told_by_content(invoke: Invoke, rows: Json) -> None:
    found = rows("runs", "diff", "r1", "r2")
    assert found["params"] == [{"name": "shares", "a": [0.25, 0.75], "b": [0.25, 0.5]}]
    changed = [(item["step"], item["map_index"]) for item in found["artifacts"] if item["change"] != "same"]
    assert changed == [("grind", 1)]
    text = invoke("runs", "diff", "r1", "r2")
    assert "grind[1].sack" in text
    assert "harvest.grain" not in text
    assert "4 of 5 outputs are the same." in text
    assert "harvest.grain" in invoke("runs", "diff", "r1", "r2", "--all")


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "show", "r9"),
        ("runs", "diff", "r1", "r9"),
        ("artifacts", "show", "0123456789abcdef"),
        ("artifacts", "get", "r1/grind/flour"),
        ("lineage", "nothing"),
    ],
)
def test_what_is_not_there_is_a_usage_error_without_a_traceback(invoke: Invoke, command: tuple[str, ...]) -> None:
    told = invoke(*command, code=2)
    assert command[-1] in told
    assert "Traceback" not in told


# --- artifacts --------------------------------------------------------------------------------------------------------


def test_artifacts_are_flat_objects_and_filtered(invoke: Invoke, rows: Json) -> None:
    listed = rows("artifacts", "ls", "--run", "r1")
    wanted = ["id", "name", "type", "step", "output", "run_id", "uri", "digest", "size_bytes", "materializer"]
    assert len(listed) == 5
    assert flat(listed)
    assert all(item[key] not in (None, "") for item in listed for key in wanted)
    assert [item["output"] for item in rows("artifacts", "ls", "--type", "Report")] == ["label", "label"]
    assert {item["run_id"] for item in rows("artifacts", "ls", "--name", "flour label")} == {"r1", "r2"}
    assert len(rows("artifacts", "ls", "--step", "grind", "--limit", "3")) == 3
    assert "grind[1]" in invoke("artifacts", "ls")


def test_an_artifact_shows_its_manifest_parents_and_children(invoke: Invoke, rows: Json) -> None:
    shown = rows("artifacts", "show", "r1/grind/sack/0")
    assert shown["manifest"]["digest"] == shown["digest"]
    assert [parent["output"] for parent in shown["parents"]] == ["grain"]
    assert [child["output"] for child in shown["children"]] == ["label"]
    text = invoke("artifacts", "show", shown["id"])
    for word in (shown["digest"], "grind.sack of task 0 in run r1", "value.json", "flour label"):
        assert word in text


def test_one_file_is_copied_to_a_file_and_nothing_is_overwritten(invoke: Invoke, project: Path) -> None:
    told = invoke("artifacts", "get", "r1/harvest/weight", "--output", "out/weight.json")
    assert told.startswith("wrote out/weight.json")
    assert json.loads(Path("out/weight.json").read_text()) == {"fields": 3}
    Path("out/weight.json").write_text("mine")
    assert "--force" in invoke("artifacts", "get", "r1/harvest/weight", "--output", "out/weight.json", code=2)
    assert Path("out/weight.json").read_text() == "mine"
    invoke("artifacts", "get", "r1/harvest/weight", "--output", "out/weight.json", "--force")
    assert json.loads(Path("out/weight.json").read_text()) == {"fields": 3}
    assert [path.name for path in Path("out").iterdir()] == ["weight.json"], "nothing is left beside it"


def test_without_a_path_the_artifact_s_name_is_taken_with_its_file_s_suffix(invoke: Invoke) -> None:
    invoke("artifacts", "get", "r1/harvest/weight")
    assert Path("weight.json").is_file()


def test_several_files_are_copied_to_a_folder(invoke: Invoke, project: Path) -> None:
    (project / "flows" / "tree.py").write_text(
        "from pathlib import Path\n"
        "from tailrace import pipeline, step\n"
        "@step(outputs='tree')\n"
        "def grow() -> Path:\n"
        "    for name in ('a/b.txt', 'c.txt'):\n"
        "        Path('grown', name).parent.mkdir(parents=True, exist_ok=True)\n"
        "        Path('grown', name).write_text(name)\n"
        "    return Path('grown')\n"
        "@pipeline\n"
        "def tree() -> None:\n"
        "    grow()\n"
    )
    invoke("run", "tree", "--run-id", "t")
    invoke("artifacts", "get", "t/grow/tree", "-o", "copy")
    copied = {path.name: path.read_text() for path in Path("copy").rglob("*.txt")}
    assert copied == {"b.txt": "a/b.txt", "c.txt": "c.txt"}


def test_what_else_is_in_a_folder_stays_when_files_in_it_are_replaced(invoke: Invoke, project: Path) -> None:
    test_several_files_are_copied_to_a_folder(invoke, project)
    Path("copy/mine.txt").write_text("mine")
    Path("copy/c.txt").write_text("old")
    assert "--force" in invoke("artifacts", "get", "t/grow/tree", "-o", "copy", code=2)
    invoke("artifacts", "get", "t/grow/tree", "-o", "copy", "--force")
    assert (Path("copy/mine.txt").read_text(), Path("copy/c.txt").read_text()) == ("mine", "c.txt")
    assert "is a folder" in invoke("artifacts", "get", "r1/harvest/weight", "-o", "copy", "--force", code=2)


def test_a_place_that_cannot_be_written_is_told_without_a_traceback(invoke: Invoke) -> None:
    Path("file").write_text("")
    told = invoke("artifacts", "get", "r1/harvest/weight", "-o", "file/below", code=1)
    assert "file" in told
    assert "Traceback" not in told


def test_a_damaged_file_is_not_copied(invoke: Invoke, rows: Json, project: Path) -> None:
    (stored,) = (path for path in project.rglob("r1/data/harvest/weight/content-*/*") if path.is_file())
    stored.write_bytes(stored.read_bytes().replace(b"3", b"4"))
    told = invoke("artifacts", "get", "r1/harvest/weight", "-o", "w.json", code=1)
    assert "digest" in told
    assert not list(project.glob("*.json"))
    assert not list(project.glob(".tailrace-*"))


# --- lineage ----------------------------------------------------------------------------------------------------------


def test_lineage_is_drawn_in_four_ways(invoke: Invoke) -> None:
    assert "made from" in invoke("lineage", "r1/write_label/label")
    assert invoke("lineage", "r1/write_label/label", "--format", "mermaid").startswith("flowchart")
    graph = json.loads(invoke("lineage", "r1/write_label/label", "--format", "json"))
    assert {node["output"] for node in graph["nodes"]} == {"label", "sack", "grain"}
    assert (
        invoke("lineage", "r1/write_label/label", "--format", "svg", "-o", "pictures/l.svg") == "wrote pictures/l.svg\n"
    )
    assert ET.parse("pictures/l.svg").getroot().tag.endswith("svg")


def test_an_output_that_has_only_ascii_is_no_error(cli: Cli) -> None:
    done = cli("lineage", "r1/write_label/label", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


def test_lineage_goes_up_or_down_and_as_far_as_asked(invoke: Invoke) -> None:
    def outputs(*options: str) -> set[str]:
        graph = json.loads(invoke("lineage", "r1/grind/sack/0", "--format", "json", *options))
        return {node["output"] for node in graph["nodes"]}

    assert outputs() == {"grain", "sack", "label"}
    assert outputs("--up") == {"grain", "sack"}
    assert outputs("--down") == {"sack", "label"}
    graph = json.loads(invoke("lineage", "r1/write_label/label", "--format", "json", "--depth", "1"))
    assert {node["output"] for node in graph["nodes"]} == {"sack", "label"}


# --- catalog ----------------------------------------------------------------------------------------------------------


def test_the_catalog_is_rebuilt_from_the_stores_with_the_same_answers(
    invoke: Invoke, rows: Json, project: Path
) -> None:
    before = rows("runs", "ls"), rows("artifacts", "ls"), invoke("lineage", "r2/write_label/label")
    (project / ".tailrace" / "catalog.db").unlink()
    assert invoke("catalog", "rebuild").startswith("2 runs and 10 artifacts")
    assert (rows("runs", "ls"), rows("artifacts", "ls"), invoke("lineage", "r2/write_label/label")) == before


def test_the_catalog_counts(invoke: Invoke, rows: Json) -> None:
    counts = rows("catalog", "stats")
    assert (counts["runs"], counts["artifacts"]) == (2, 10)
    assert counts["by_type"]["Report"] == 2
    assert "artifacts" in invoke("catalog", "stats")


def test_the_same_in_processes_of_their_own(cli: Cli) -> None:
    listing = cli("artifacts", "ls", "--json")
    assert (listing.returncode, listing.stderr) == (0, "")
    identity = json.loads(listing.stdout)[0]["id"]
    for command in (
        ("runs", "ls"),
        ("runs", "show", "r1"),
        ("runs", "diff", "r1", "r2"),
        ("artifacts", "show", identity),
        ("lineage", identity),
        ("catalog", "stats"),
        ("catalog", "rebuild"),
    ):
        done = cli(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "\x1b" not in done.stdout, command
        assert not any(line.endswith(" ") for line in done.stdout.splitlines()), command


def test_an_empty_project_has_nothing_to_list(invoke: Invoke) -> None:
    assert json.loads(invoke("runs", "ls", "--stack", "other", "--json")) == []
    assert invoke("artifacts", "ls", "--stack", "other") == ""
