"""A stored model at work: score a batch of tumours, and say how sure it was.

    tailrace artifacts ls --type Model
    tailrace run monitor --param model=URI

The parameter is an artifact: a run is given a reference or a URI, and the step gets the model, verified. So its lineage
goes back through the model to the data that it was trained on.
"""

from __future__ import annotations

from tailrace import Dataset, Metrics, Model, pipeline, step
from tailrace.adapters.prefect import to_flow


@step(outputs="batch")
def receive(rows: int, seed: int) -> Dataset:
    """As many tumours as came in; here they are drawn from the published ones."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).data
    return Dataset(frame.sample(rows, random_state=seed, ignore_index=True), name="batch")


@step(outputs="scores")
def score(model: Model, batch: Dataset) -> Dataset:
    """How likely each is benign."""
    return Dataset(batch.data.assign(benign=model.data.predict_proba(batch.data)[:, 1])[["benign"]], name="scores")


@step(outputs="health")
def watch(scores: Dataset) -> Metrics:
    """What to look at before anybody trusts the batch: the share of benign ones, and of those in between."""
    benign = scores.data["benign"]
    return Metrics(tumours=len(benign), benign=(benign > 0.5).mean(), unsure=benign.between(0.2, 0.8).mean())


@pipeline
def monitor(model: Model, rows: int = 100, seed: int = 1) -> None:
    """Score a batch with a model, and watch how sure it is."""
    watch(score(model, receive(rows, seed)))


flow = to_flow(monitor)
