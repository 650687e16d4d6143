"""The example of the README, from the command line: real data, MLflow, and the same artifacts on both orchestrators."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

ROOT = Path(__file__).parents[2]
OUTPUTS = ["candidate", "candidate", "candidate", "data", "metrics", "model", "report", "test", "train", "tree"]

pytestmark = pytest.mark.xdist_group("prefect")


def _ran(cli: Cli, *options: str) -> dict[str, Any]:
    done = cli("run", "breast_cancer", "--json", *options)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _contents(document: dict[str, Any]) -> list[tuple[str, ...]]:
    keys = ("step", "output", "map_index", "name", "type", "digest")
    return sorted(tuple(str(item[key]) for key in keys) for item in document["artifacts"])


def test_the_example_makes_the_same_artifacts_on_both_orchestrators(cli: Cli, project: Path) -> None:
    shutil.copytree(ROOT / "flows", project / "flows")
    shutil.copy(ROOT / "tailrace.yaml", project)
    inline = _ran(cli, "--orchestrator", "inline", "--run-id", "a1")
    local = _ran(cli, "--run-id", "a2")
    assert (inline["orchestrator"], local["orchestrator"]) == ("inline", "local")
    assert sorted(item["output"] for item in inline["artifacts"]) == OUTPUTS
    assert _contents(inline) == _contents(local)
    tree = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in sorted(project.rglob("a[12]/data"))
    ]
    assert tree[0] == tree[1]

    reached = {item["output"]: item["registry"] or item["tracker"] for item in local["artifacts"]}
    assert reached["model"] == "mlflow:breast-cancer/2", "the second run's version; the candidates are none"
    assert {output for output, place in reached.items() if place} == {"model", "metrics"}

    assert cli("artifacts", "get", "a2/evaluate/metrics", "-o", "metrics.json").returncode == 0
    metrics = json.loads((project / "metrics.json").read_text())
    assert min(metrics["accuracy"], metrics["roc_auc"]) > 0.95
    assert cli("artifacts", "get", "a2/describe/report").returncode == 0
    page = (project / "breast-cancer-report.html").read_text()
    assert f"{metrics['roc_auc']:.4f}" in page
    assert re.search(r'<path d="M0\.0 300\.0 L[^"]+ L300\.0 0\.0"', page), "from corner to corner"


def test_what_explain_says_of_the_example_is_where_it_goes(cli: Cli, project: Path) -> None:
    shutil.copytree(ROOT / "flows", project / "flows")
    shutil.copy(ROOT / "tailrace.yaml", project)
    rows = {row["output"]: row for row in json.loads(cli("explain", "breast_cancer", "--json").stdout)}
    assert rows["candidate"]["materializer"] == "sklearn"
    assert (rows["model"]["registry"], rows["candidate"]["registry"]) == ("mlflow", None)
    assert rows["metrics"]["tracker"] == "mlflow"
