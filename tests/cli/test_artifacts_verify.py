"""``artifacts verify``: what is sound, what is damaged or missing, and which exit code says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from .conftest import Cli, Invoke


@pytest.fixture(autouse=True)
def a_run(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "--run-id", "r1")


def asked(*arguments: str) -> tuple[int, Any]:
    from tailrace.cli.app import app

    done = CliRunner().invoke(app, ["artifacts", "verify", *arguments, "--json"], catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


def stored(project: Path, pattern: str) -> Path:
    (found,) = (path for path in (project / ".tailrace").rglob(pattern) if path.is_file())
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_what_is_whole_is_sound_in_every_store_of_the_stack(invoke: Invoke) -> None:
    assert invoke("artifacts", "verify", "--all").startswith("5 artifacts are sound (")
    assert invoke("artifacts", "verify", "--run", "r1").startswith("5 artifacts are sound (")
    assert invoke("artifacts", "verify", "r1/harvest/grain", "r1/harvest/weight").startswith("2 artifacts are sound (")


def test_a_flipped_bit_is_named_with_artifact_file_and_both_digests(invoke: Invoke, project: Path) -> None:
    flip(stored(project, "r1/data/harvest/weight/content-*/*"))
    code, told = asked("--all")
    assert (code, told["artifacts"]) == (1, 5)
    (damage,) = told["damage"]
    assert damage["uri"].endswith("r1/data/harvest/weight")
    assert (damage["file"], damage["state"]) == ("value.json", "damaged")
    assert damage["expected"].startswith("blake3:")
    assert damage["found"].startswith("blake3:")
    assert damage["expected"] != damage["found"]
    assert asked("r1/harvest/weight")[0] == asked("--run", "r1")[0] == 1
    assert asked("r1/harvest/grain")[0] == 0


def test_a_flipped_bit_in_a_manifest_is_found_by_every_way_of_naming_it(invoke: Invoke, project: Path) -> None:
    _, before = asked("r1/harvest/weight")
    manifest = stored(project, "r1/data/harvest/weight/manifest.json")
    flip(manifest)
    uri = f"file://{manifest.parent}"
    for named in (["r1/harvest/weight"], [uri], ["--run", "r1"], ["--all"]):
        code, told = asked(*named)
        assert code == 1, named
        assert [(item["uri"], item["file"]) for item in told["damage"]] == [(uri, "manifest.json")]
    assert before["damage"] == []


def test_what_a_run_s_records_name_and_is_gone_is_missing_and_of_all_there_is_it_is_no_part(
    invoke: Invoke, project: Path
) -> None:
    stored(project, "r1/data/harvest/weight/manifest.json").unlink()
    code, told = asked("--run", "r1")
    assert code == 1
    assert [(item["file"], item["state"]) for item in told["damage"]] == [("manifest.json", "missing")]
    assert asked("--all") == (0, {"artifacts": 4, "size_bytes": told["size_bytes"], "damage": []})


def test_a_person_reads_what_is_missing(cli: Cli, project: Path) -> None:
    gone = stored(project, "r1/data/harvest/weight/content-*/*")
    gone.unlink()
    done = cli("artifacts", "verify", "--all")
    assert done.returncode == 1
    assert "1 of 5 artifacts are damaged" in done.stdout
    for word in ("harvest/weight", "value.json", "missing", "nothing"):
        assert word in done.stdout
    assert done.stderr == ""


def test_what_cannot_be_meant_is_a_usage_error(invoke: Invoke) -> None:
    assert "--run" in invoke("artifacts", "verify", code=2)
    assert "r9" in invoke("artifacts", "verify", "--run", "r9", code=2)
    assert "nobody" in invoke("artifacts", "verify", "nobody", code=2)
    assert "s3://b" in invoke("artifacts", "verify", "s3://b/key", code=2)
