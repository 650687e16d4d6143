"""A model and its metrics, on a stack without MLflow and on one with it; prints the seconds of each run as JSON."""

from __future__ import annotations

import json
import sys
import time

from sklearn.dummy import DummyClassifier

from tailrace import Metrics, Model, pipeline, step


@step
def fit(seed: int) -> Model:
    return Model(DummyClassifier(random_state=seed).fit([[0], [1]], [0, 1]), name="dummy")


@step
def score(model: Model) -> Metrics:
    return Metrics(accuracy=model.data.score([[0], [1]], [0, 1]))


@pipeline
def train(seed: int = 0) -> None:
    score(fit(seed))


def _seconds(stack: str) -> float:
    begin = time.perf_counter()
    train.run(stack=stack, orchestrator="inline")
    return time.perf_counter() - begin


_seconds("plain")  # imports what both need
figures: dict[str, list[float]] = {"plain": [], "tracked": []}
for _ in range(6):
    for stack, seconds in figures.items():
        seconds.append(_seconds(stack))
sys.stdout.write("\n" + json.dumps(figures))
