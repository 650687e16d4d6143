"""Models that are fitted the same in every process, and the digests of their files: run as a script, it prints them."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.svm import SVC

from tailrace.materializers.files import FileWriter
from tailrace.materializers.registry import save

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
SMALL = X.iloc[:120, :4]
SMALL_Y = Y.iloc[:120]
KINDS = SMALL.assign(kind=["a", "b", "c"] * 40)


def columns() -> Any:
    numbers = ("numbers", StandardScaler(), ["mean radius"])
    kinds = ("kinds", OneHotEncoder(handle_unknown="ignore"), ["kind"])
    return make_pipeline(ColumnTransformer([numbers, kinds]), RandomForestClassifier(5, random_state=0)).fit(
        KINDS, SMALL_Y
    )


MODELS: dict[str, Callable[[], Any]] = {
    "not fitted": lambda: Pipeline([("scale", StandardScaler()), ("svc", SVC())]),
    "linear": lambda: LogisticRegression(C=0.5, class_weight={0: 1, 1: 2}, max_iter=500).fit(SMALL, SMALL_Y),
    "forest": lambda: RandomForestClassifier(20, random_state=0).fit(X, Y),
    "random state object": lambda: RandomForestClassifier(3, random_state=np.random.RandomState(0)).fit(SMALL, SMALL_Y),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(SMALL, SMALL_Y),
    "neighbours": lambda: KNeighborsClassifier().fit(SMALL, SMALL_Y),
    "network": lambda: MLPClassifier((5,), max_iter=2, random_state=0).fit(SMALL, SMALL_Y),
    "text": lambda: make_pipeline(TfidfVectorizer(stop_words=["the", "a"]), LogisticRegression()).fit(
        ["the cat", "a dog", "some bird"], [0, 1, 0]
    ),
    "columns": columns,
    "functions of numpy and scikit-learn": lambda: make_pipeline(
        FunctionTransformer(np.log1p), SelectKBest(f_classif, k=2), SplineTransformer(), LogisticRegression()
    ).fit(SMALL, SMALL_Y),
    "stacking": lambda: StackingClassifier([("a", LogisticRegression(max_iter=500)), ("b", SVC())]).fit(SMALL, SMALL_Y),
}


def digests() -> dict[str, dict[str, str]]:
    found = {}
    for name, fit in MODELS.items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer = FileWriter(Path(folder))
            save(fit(), writer)
            found[name] = {entry.path: entry.digest for entry in writer.finish()}
    return found


if __name__ == "__main__":
    json.dump(digests(), sys.stdout)
