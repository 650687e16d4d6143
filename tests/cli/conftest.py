"""A project with a pipeline in it, and the command: in this process, and as a person's shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

CONFIG = """
project: {name: mill}
active_stack: dev
stacks:
  dev:
    orchestrator: {type: inline}
    artifact_stores: {cold: {type: local, path: .tailrace/cold}}
    artifact_routing:
      Report: {store: cold, path: "{pipeline}/{run_id}/{artifact_name}"}
  other:
    orchestrator: {type: inline}
    artifact_store: {type: local, path: elsewhere}
"""

PIPELINE = '''
"""Grain to flour."""

from dataclasses import dataclass

from tailrace import Dataset, Metrics, Report, pipeline, step


@dataclass
class Sack:
    kilos: float


@step(outputs=["grain", "weight"])
def harvest(fields: int) -> tuple[Dataset, Metrics]:
    return Dataset([{"field": field, "kilos": 100.5 * field} for field in range(fields)]), Metrics(fields=fields)


@step(outputs="sack")
def grind(share: float, grain: Dataset):
    return Sack(share * sum(row["kilos"] for row in grain.data))


@step(outputs="label")
def write_label(sacks: list, stop: bool) -> Report:
    if stop:
        raise RuntimeError("the wheel stands still")
    print("writing the label")
    return Report(f"{len(sacks)} sacks", name="flour label")


@pipeline
def mill(fields: int = 3, shares: tuple[float, ...] = (0.25, 0.75), stop: bool = False) -> None:
    grain, _ = harvest(fields)
    write_label(grind.partial(grain=grain).map(shares), stop)
'''

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Invoke = Callable[..., str]
Json = Callable[..., Any]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a shell whose output is piped, whatever this one is."""
    plain = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    return {**plain, **changes}


@pytest.fixture
def cli(project: Path) -> Cli:
    """The command in a process of its own, with its output piped."""

    def run(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tailrace.cli", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment(**changes), cwd=project, timeout=120
        )

    return run


@pytest.fixture
def invoke(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """The command in this process: returns standard output, or standard error where a failure is expected."""
    from tailrace.cli.app import app

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def run(*arguments: str | Path, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False, prog_name="tailrace")
        assert done.exit_code == code, done.output
        return done.stderr if code else done.stdout

    yield run
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(project) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def rows(invoke: Invoke) -> Json:
    """What a command prints with ``--json``."""
    return lambda *arguments: json.loads(invoke(*arguments, "--json"))


@pytest.fixture
def mill(project: Path) -> Path:
    """A project with a configuration and the pipeline ``mill``; returns the pipeline's file."""
    (project / "tailrace.yaml").write_text(CONFIG)
    file = project / "flows" / "mill.py"
    file.parent.mkdir()
    file.write_text(PIPELINE)
    return file
