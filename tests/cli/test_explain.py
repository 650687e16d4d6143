"""``tailrace explain``: what it says is what a run does, and it does nothing itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .conftest import Cli, Invoke, environment


def test_every_output_is_where_it_was_explained_to_be(invoke: Invoke, mill: Path, project: Path) -> None:
    rows = json.loads(invoke("explain", "mill", "--run-id", "r", "--json"))
    invoke("run", "mill", "--run-id", "r")
    made = json.loads(invoke("artifacts", "ls", "--run", "r", "--json"))
    roots = {"default": project / ".tailrace/artifacts", "cold": project / ".tailrace/cold"}
    explained = {
        (row["step"], row["output"], index): (
            roots[row["store"]] / row["path"].replace("{map_index}", f"{index:06d}")
        ).as_uri()
        for row in rows
        for index in ([0, 1] if "{map_index}" in row["path"] else [0])
    }
    assert explained == {(item["step"], item["output"], item["map_index"] or 0): item["uri"] for item in made}
    assert {row["type"] for row in rows if row["output"] != "sack"} == {"Dataset", "Metrics", "Report"}


def test_it_names_materializer_destinations_and_the_rule_that_decided(
    invoke: Invoke, mill: Path, project: Path
) -> None:
    config = project / "tailrace.yaml"
    config.write_text(
        config.read_text().replace(
            "    artifact_stores", "    experiment_tracker: {type: mlflow}\n    artifact_stores", 1
        )
    )
    rows = {row["output"]: row for row in json.loads(invoke("explain", "mill", "--json"))}
    weight, label, sack = rows["weight"], rows["label"], rows["sack"]
    assert (weight["materializer"], weight["tracker"], weight["rule"]) == ("plain", "mlflow", "built-in")
    assert (label["store"], label["path"], label["tracker"]) == ("cold", "mill/{run_id}/label/write_label", None)
    assert label["rule"] == "artifact_routing.Report"
    assert sack["type"] == sack["materializer"] == "decided by value at run time"
    assert sack["path"].endswith("/{run_id}/data/grind/sack/{map_index}")


def test_a_condition_is_named(invoke: Invoke, project: Path) -> None:
    (project / "branches.py").write_text(
        "from tailrace import pipeline, step\n"
        "@step\ndef kind() -> str:\n    return 'poor'\n"
        "@step\ndef baseline() -> int:\n    return 1\n"
        "@pipeline\ndef branches() -> None:\n    baseline.when(kind(), equals='poor')()\n"
    )
    rows = {row["step"]: row["when"] for row in json.loads(invoke("explain", "branches.py", "--json"))}
    assert rows == {"kind": None, "baseline": "output 'kind' of step 'kind' is 'poor'"}
    assert "only if       output 'kind' of step 'kind' is 'poor'" in invoke("explain", "branches.py")


def test_the_text_says_the_same(invoke: Invoke, mill: Path) -> None:
    text = invoke("explain", "mill")
    assert "write_label -> label: Report" in text
    assert "cold (local)" in text
    assert "artifact_routing.Report" in text


def test_a_prompts_registry_is_named_and_whose_it_is(invoke: Invoke, project: Path) -> None:
    (project / "ask.py").write_text(
        "from tailrace import Prompt, pipeline, step\n"
        "@step\ndef question() -> Prompt:\n    return Prompt('{topic}?')\n"
        "@pipeline\ndef ask() -> None:\n    question()\n"
    )
    said = {}
    for part in ("experiment_tracker", "model_registry"):
        config = project / f"{part}.yaml"
        config.write_text(f"plugins: {{{part}: {{type: mlflow}}}}")
        (row,) = json.loads(invoke("explain", "ask.py", "--config", str(config), "--json"))
        assert (row["registry"], row["rule"]) == ("mlflow", "built-in")
        text = invoke("explain", "ask.py", "--config", str(config))
        said[part] = next(line.split(None, 1)[1] for line in text.splitlines() if line.startswith("  registry"))
    assert said == {"experiment_tracker": "mlflow, the tracker's", "model_registry": "mlflow"}


def test_another_stack_has_its_own_rules(invoke: Invoke, mill: Path) -> None:
    rows = json.loads(invoke("explain", "mill", "--stack", "other", "--json"))
    assert {(row["store"], row["rule"]) for row in rows} == {("default", "built-in")}


def test_nothing_is_written_and_no_heavy_library_is_imported(mill: Path, project: Path) -> None:
    code = (
        "import sys; from tailrace.cli.app import app; app(['explain', 'mill'], standalone_mode=False);"
        "print({'prefect', 'mlflow', 'numpy', 'pandas', 'sklearn', 'sqlalchemy', 'fsspec'} & set(sys.modules))"
    )
    before = sorted(project.rglob("*"))
    env = environment(PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert sorted(project.rglob("*")) == before


def test_a_pipeline_that_cannot_be_planned_is_a_usage_error(cli: Cli, mill: Path) -> None:
    mill.write_text(mill.read_text().replace("harvest(fields)", "harvest()"))
    done = cli("explain", "mill")
    assert done.returncode == 2
    assert "no value is given for 'fields'" in done.stderr or "missing a required argument: 'fields'" in done.stderr
    assert "Traceback" not in done.stderr
