"""Wisconsin breast cancer: data, split, four candidates, the best of them, its metrics, a report with its ROC curve.

    tailrace explain breast_cancer
    tailrace run breast_cancer --param seed=7 --param 'strengths=[0.01, 0.1, 1]'
    prefect deploy flows/breast_cancer.py:flow --name d --pool p

No step says where its result goes: the types do, and tailrace.yaml says what they mean. What fit() and grow() return is
a plain estimator, which is stored; what select() returns is a Model, which is registered too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailrace import Dataset, Metrics, Model, Report, pipeline, step
from tailrace.adapters.prefect import to_flow

if TYPE_CHECKING:
    import sklearn.base
    import sklearn.pipeline
    import sklearn.tree


@step(outputs="data")
def load() -> Dataset:
    """569 tumours, 30 measurements of each; the target is 1 where the tumour is benign."""
    from sklearn.datasets import load_breast_cancer

    return Dataset(load_breast_cancer(as_frame=True).frame, name="wisconsin")


@step(outputs=["train", "test"])
def split(data: Dataset, test_size: float, seed: int) -> tuple[Dataset, Dataset]:
    """Two parts with the same share of benign tumours."""
    from sklearn.model_selection import train_test_split

    frame = data.data
    train, test = train_test_split(frame, test_size=test_size, random_state=seed, stratify=frame["target"])
    return Dataset(train, name="train"), Dataset(test, name="test")


@step(outputs="candidate", retries=1)
def fit(train: Dataset, strength: float) -> sklearn.pipeline.Pipeline:
    """A logistic regression; the smaller the strength, the more it is held back."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    return model.fit(train.data.drop(columns="target"), train.data["target"])


@step(outputs="tree")
def grow(train: Dataset, max_depth: int, seed: int) -> sklearn.tree.DecisionTreeClassifier:
    """A decision tree: no more questions than its depth lead to an answer."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=max_depth, random_state=seed)
    return tree.fit(train.data.drop(columns="target"), train.data["target"])


@step(outputs="model")
def select(lines: list[sklearn.pipeline.Pipeline], tree: sklearn.tree.DecisionTreeClassifier, train: Dataset) -> Model:
    """The candidate with the largest area under the ROC curve, in a cross-validation on the training data."""
    from sklearn.model_selection import cross_val_score

    features, target = train.data.drop(columns="target"), train.data["target"]
    candidates: list[sklearn.base.BaseEstimator] = [*lines, tree]
    scores = [cross_val_score(model, features, target, scoring="roc_auc").mean() for model in candidates]
    best = max(range(len(candidates)), key=scores.__getitem__)
    return Model(candidates[best], name="breast-cancer", metadata={"cv_roc_auc": scores, "chosen": best})


@step(outputs="metrics")
def evaluate(model: Model, test: Dataset) -> Metrics:
    """How good it is on data that it has never seen."""
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    features, target = test.data.drop(columns="target"), test.data["target"]
    guess, likely = model.data.predict(features), model.data.predict_proba(features)[:, 1]
    return Metrics(
        accuracy=accuracy_score(target, guess), f1=f1_score(target, guess), roc_auc=roc_auc_score(target, likely)
    )


@step(outputs="report")
def describe(model: Model, test: Dataset, metrics: Metrics) -> Report:
    """A page with the metrics and the ROC curve."""
    from sklearn.metrics import roc_curve

    likely = model.data.predict_proba(test.data.drop(columns="target"))[:, 1]
    wrong, right, _ = roc_curve(test.data["target"], likely)
    points = " L".join(f"{300 * x:.1f} {300 - 300 * y:.1f}" for x, y in zip(wrong, right, strict=True))
    rows = "".join(f"<tr><td>{name}<td>{value:.4f}" for name, value in metrics.items())
    page = PAGE.format(title=model.name, rows=rows, points=points, tested=len(test))
    return Report(page, name="breast-cancer-report")


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui; margin: 3rem auto; max-width: 40rem }}
  td {{ padding-right: 2rem; font-variant-numeric: tabular-nums }}
  svg {{ margin: 1rem 0; overflow: visible }}
</style>
<h1>{title}</h1>
<p>Measured on {tested} tumours that it was not trained on.</p>
<table>{rows}</table>
<svg width="300" height="300" fill="none" role="img" aria-label="ROC curve">
  <path d="M0 0V300H300" stroke="#999"/>
  <path d="M0 300L300 0" stroke="#ccc" stroke-dasharray="4"/>
  <path d="M{points}" stroke="#06c" stroke-width="2"/>
</svg>
<p>Right to the top: benign tumours that are recognised. Along the bottom: malignant ones that are taken for benign.</p>
</html>
"""


@pipeline(name="breast-cancer")
def breast_cancer(
    test_size: float = 0.25, strengths: tuple[float, ...] = (0.01, 0.1, 1.0), max_depth: int = 4, seed: int = 7
) -> None:
    """Train a candidate for each strength and a tree, keep the best, measure it, report."""
    train, test = split(load(), test_size, seed)
    lines = fit.partial(train=train).map(strength=strengths)
    model = select(lines, grow(train, max_depth, seed), train)
    describe(model, test, evaluate(model, test))


flow = to_flow(breast_cancer)
