"""The flows of the repository are deployed by its ``prefect.yaml``, and leave what a local run leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tailrace import load_pipeline
from tailrace.adapters.testing import left_behind

from .services import POOL, Prefect

pytestmark = pytest.mark.xdist_group("prefect deployed")

ROOT = Path(__file__).parents[2]


def _copy(folder: Path) -> Path:
    """The examples, as a user has them."""
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tailrace.yaml", "prefect.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def examples(deployed: Prefect) -> Path:
    return _copy(deployed.folder / "examples")


def test_prefect_yaml_deploys_every_flow(deployed: Prefect, examples: Path) -> None:
    deployed.cli("deploy", "--all", cwd=examples)
    names = {"breast-cancer/d", "cross-validation/nightly", "monitor/by-hand"}
    found = {name: deployed.deployment(name) for name in names}
    assert {deployment["entrypoint"] for deployment in found.values()} == {
        f"flows/{file.name}:flow" for file in (ROOT / "flows").glob("*.py")
    }
    nightly = found["cross-validation/nightly"]
    assert nightly["parameters"] == {"folds": 8}
    assert [schedule["active"] for schedule in nightly["schedules"]] == [False]


@pytest.mark.slow
def test_the_example_that_a_worker_runs_leaves_what_a_local_run_leaves(
    deployed: Prefect, examples: Path, project: Path
) -> None:
    deployed.cli("deploy", "-n", "d", "-p", POOL, "flows/breast_cancer.py:flow", cwd=examples)
    given = ("-p", "max_depth=3", "-p", "run_id=once")
    said = deployed.cli("deployment", "run", "breast-cancer/d", *given, "--watch", cwd=examples)
    assert "Flow run finished successfully in 'Completed'" in said

    reference = _copy(project)
    run = load_pipeline(reference / "flows" / "breast_cancer.py").run
    run({"max_depth": 3}, orchestrator="inline", run_id="once", config=str(reference / "tailrace.yaml"))
    left = left_behind(examples, "once")
    assert left_behind(reference, "once").differences(left) == []
    assert left.tracker["numbers"] == {"breast-cancer": [1]}
    assert left.tracker["runs"][0]["params"]["grow.max_depth"] == "3"
