"""Committed artifacts, as far as a registry looks at them, and processes that register one at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tailrace.core.refs import ArtifactRef, Manifest, Run

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def a_run(root: Path) -> Run:
    return Run("r1", "train", "churn", NOW, "local", "inline", str(root))


def artifact(
    root: Path, *, artifact_id: str = "a1", content: str = "0" * 64, **about: Any
) -> tuple[ArtifactRef, Manifest]:
    """A committed artifact, as far as a registry looks at it."""
    digest = f"blake3:{content}"
    folder = root / "artifacts" / artifact_id / f"content-{content[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text("{}")
    uri = folder.parent.as_uri()
    about = {"name": "model", "version": "v1.2", **about}
    manifest = Manifest(
        artifact_id, about.pop("name"), "Model", "json", 1, digest, folder.name, (), NOW.isoformat(), **about
    )
    return ArtifactRef(artifact_id, uri, digest, "", "Model", manifest.name), manifest


WORKER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import mlflow, orjson
from tailrace import Prompt
from tailrace.core.refs import ArtifactRef, Manifest, Run
from tailrace.routing.registries.mlflow import MlflowRegistry

root = Path(sys.argv[1])
ref = ArtifactRef.from_dict(orjson.loads(sys.argv[2]))
manifest = Manifest.from_dict(orjson.loads(sys.argv[3]))
run = Run("r1", "train", "churn", datetime.now(UTC), "local", "inline", str(root))
print("ready", flush=True)
sys.stdin.readline()
print(*MlflowRegistry(root=root).CALL)
"""


def at_once(root: Path, ref: ArtifactRef, manifest: Manifest, call: str) -> set[str]:
    """What four processes print that make this call of a registry at once, whose database is as new as they are."""
    shutil.rmtree(root / ".tailrace")
    told = [str(root), orjson.dumps(ref.to_dict()).decode(), orjson.dumps(manifest.to_dict()).decode()]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER.replace("CALL", call), *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in workers:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in workers:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate() for process in workers]
    assert {errors for _, errors in ended} == {""}
    return {output for output, _ in ended}
