"""``tailrace cache``, ``tailrace run --no-cache``, and how a run shows what came from the cache."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from .conftest import Invoke

PIPELINE = """
from tailrace import Metrics, pipeline, step

@step(cache=True, outputs=["scores"])
def judge(rate: float) -> Metrics:
    return Metrics(rate=rate)

@step(cache=True)
def root(number: float) -> float:
    return number**0.5

@pipeline
def saw(rate: float = 0.5) -> None:
    judge(rate)
    root.map(number=[1.0, 4.0])
"""


@pytest.fixture(autouse=True)
def saw(project: Path) -> None:
    (project / "saw.py").write_text(PIPELINE)


def ran(invoke: Invoke, *options: str) -> str:
    return invoke("run", "saw", "--orchestrator", "inline", *options)


def test_a_run_shows_what_came_from_the_cache_and_no_cache_computes_and_replaces(invoke: Invoke) -> None:
    assert "cached" not in ran(invoke, "--run-id", "r1")
    out = ran(invoke, "--run-id", "r2")
    assert re.search(r"^completed  judge  .*scores \(.*\) cached$", out, re.MULTILINE)
    assert re.search(r"^root +completed \(cached\) +\S+ +2$", out, re.MULTILINE)
    assert "cached, from run r1" in invoke("runs", "show", "r2")
    shown = json.loads(invoke("runs", "show", "r2", "--json"))
    assert [task["cached"]["run_id"] for task in shown["tasks"]] == ["r1"] * 3
    assert "cached" not in ran(invoke, "--no-cache", "--run-id", "r3")
    assert "TAILRACE_CACHE" not in os.environ
    done = json.loads(ran(invoke, "--json"))
    assert [step["cached"] for step in done["steps"]] == [1, 2]
    assert {row["run_id"] for row in json.loads(invoke("cache", "ls", "--json"))} == {"r3"}


def test_the_entries_are_listed_by_step_and_removed_by_step_and_age(invoke: Invoke) -> None:
    assert "[]" in invoke("cache", "ls", "--json")
    ran(invoke, "--run-id", "r1")
    listed = invoke("cache", "ls")
    assert listed.splitlines()[0].split() == [
        "Key",
        "Step",
        "Outputs",
        "Size",
        "Computed",
        "in",
        "Computed",
        "(UTC)",
        "Run",
    ]
    assert len(listed.splitlines()) == 4
    rows = json.loads(invoke("cache", "ls", "--step", "root", "--json"))
    assert sorted((row["step"], row["map_index"], row["run_id"]) for row in rows) == [
        ("root", 0, "r1"),
        ("root", 1, "r1"),
    ]
    assert all(not isinstance(value, dict | list) for row in rows for value in row.values())
    assert "Removed 0 entries" in invoke("cache", "clear", "--older-than", "1d")
    assert "Removed 2 entries" in invoke("cache", "clear", "--step", "root")
    assert [row["step"] for row in json.loads(invoke("cache", "clear", "--older-than", "0s", "--json"))] == ["judge"]
    assert "Removed 0 entries" in invoke("cache", "clear")
    assert "cached" not in ran(invoke)


def test_a_shared_cache_is_listed_and_cleared_apart(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "TAILRACE_CACHE_REMOTE" in invoke("cache", "ls", "--remote", code=2)
    monkeypatch.setenv("TAILRACE_CACHE_REMOTE", str(tmp_path / "shared"))
    ran(invoke)
    assert len(json.loads(invoke("cache", "ls", "--remote", "--json"))) == 3
    invoke("cache", "clear")
    assert "cached" in ran(invoke)
    assert "Removed 3 entries" in invoke("cache", "clear", "--remote")
    assert list((tmp_path / "shared").rglob("*.json")) == []
    assert len(json.loads(invoke("cache", "ls", "--json"))) == 3


def test_an_age_that_is_none_is_refused(invoke: Invoke) -> None:
    assert "is no duration" in invoke("cache", "clear", "--older-than", "soon", code=2)
