"""A training that is interrupted goes on from its last checkpoint: in a retry, after a crash, when started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tailrace import Checkpoint, LocalArtifactStore, Pipeline, StepFailed, TailraceError, current_run, pipeline, step

SEEN: list[int] = []


@step(retries=1)
def train(epochs: int, fails_at: int = -1) -> list[int]:
    run = current_run()
    last = run.resume()
    weights, start = (last.state, last.epoch + 1) if last and last.epoch is not None else ([], 0)
    for epoch in range(start, epochs):
        if epoch == fails_at and run.run.attempt == 1:
            raise OSError("the machine went away")
        SEEN.append(epoch)
        weights = [*weights, epoch]
        run.checkpoint(weights, epoch=epoch, every=2)
    return weights


@pipeline
def training(epochs: int = 6, fails_at: int = -1) -> None:
    train(epochs, fails_at)


@pytest.mark.parametrize("orchestrator", ["inline", "local"])
def test_a_retried_step_goes_on_from_its_last_checkpoint(orchestrator: str, prefect_server: None) -> None:
    SEEN.clear()
    result = training.run({"fails_at": 4}, orchestrator=orchestrator)
    assert result.outputs["train"] == [0, 1, 2, 3, 4, 5]
    assert SEEN == [0, 1, 2, 3, 3, 4, 5]  # the third epoch was not stored, since only each second is


def test_only_the_last_checkpoint_is_kept_and_it_says_where_it_was(project: Path) -> None:
    result = training.run(orchestrator="inline", run_id="r")
    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    (path,) = (path for path in store.list_artifacts() if path.endswith("/checkpoint"))
    kept = store.load(path)
    assert isinstance(kept, Checkpoint)
    assert (kept.epoch, kept.state, kept.name) == (4, [0, 1, 2, 3, 4], "checkpoint")
    (record,) = result.steps["train"].tasks
    assert [ref.uri for ref in record.extra] == [store.uri(path)]


PROGRAM = """
import os, sys
from tailrace import current_run, pipeline, step

@step
def train(epochs: int) -> list[int]:
    run = current_run()
    last = run.resume("weights")
    weights = list(last.state) if last else []
    for number in range(len(weights), epochs):
        weights.append(os.getpid())
        run.checkpoint(weights, step=number, name="weights")
        if len(sys.argv) > 1 and number == 2:
            os.kill(os.getpid(), 9)
    return weights

@pipeline
def training(epochs: int = 5) -> None:
    train(epochs)

print(*training.run(orchestrator="inline", run_id="r").outputs["train"])
"""


def test_a_run_that_was_killed_goes_on_when_it_is_started_again(project: Path) -> None:
    (project / "training.py").write_text(PROGRAM)
    killed = subprocess.run([sys.executable, "training.py", "kill"], cwd=project, env=os.environ, check=False)
    assert killed.returncode == -9
    again = subprocess.run(
        [sys.executable, "training.py"], cwd=project, env=os.environ, capture_output=True, text=True, check=True
    )
    first, second = dict.fromkeys(again.stdout.split())
    assert again.stdout.split() == [first] * 3 + [second] * 2


def test_another_run_and_another_item_have_checkpoints_of_their_own(project: Path) -> None:
    @step
    def item(number: int) -> Any:
        run = current_run()
        found = run.resume()
        run.checkpoint(number)
        return found and found.state

    made = Pipeline("items", context={"number": [1, 2]}).add_step(item, map_over="number")
    assert made.run(orchestrator="inline", run_id="a").outputs["item"] == [None, None]
    assert made.run(orchestrator="inline", run_id="b").outputs["item"] == [None, None]
    assert made.run(orchestrator="inline", run_id="a").outputs["item"] == [1, 2]


def test_what_is_no_checkpoint_is_not_resumed_from(project: Path) -> None:
    @step
    def confused() -> int:
        current_run().record_artifact([1], name="checkpoint")
        current_run().resume()
        return 1

    with pytest.raises(StepFailed, match="'checkpoint' of step 'confused' is a list, not a checkpoint") as error:
        Pipeline("p").add_step(confused).run(orchestrator="inline")
    assert isinstance(error.value.__cause__, TailraceError)


@pytest.mark.parametrize("method", ["checkpoint", "record_artifact", "resume"])
def test_the_name_of_an_output_is_refused_for_anything_else(method: str, project: Path) -> None:
    @step
    def fitted() -> int:
        handle = current_run()
        if method == "resume":
            handle.resume("fitted")
        else:
            getattr(handle, method)([1], name="fitted")
        return 1

    @pipeline
    def fits() -> None:
        fitted()

    with pytest.raises(StepFailed, match="'fitted' is the name of an output of step 'fitted'"):
        fits.run(orchestrator="inline")


def test_a_checkpoint_every_no_epochs_is_refused(project: Path) -> None:
    @step
    def fitted() -> None:
        current_run().checkpoint([1], epoch=1, every=0)

    @pipeline
    def fits() -> None:
        fitted()

    with pytest.raises(StepFailed, match="every=0 is not above 0"):
        fits.run(orchestrator="inline")
