"""What version 1 of other libraries' formats wrote is read as it was, by whatever version of the library is here.

A golden is never edited; as a script, this adds new ones. What a model predicted is kept beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailrace import Model
from tailrace.core.refs import FileEntry
from tailrace.materializers.files import FileReader, FileWriter, digest_file
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import load, save

if __package__:
    from . import libraries
else:
    import libraries  # type: ignore[import-not-found, no-redef]

GOLDEN = Path(__file__).with_name("golden")

MODELS = {
    "xgboost-wrapper": ("xgboost", "stopped"),
    "xgboost-booster": ("xgboost", "dart"),
    "xgboost-unfitted": ("xgboost", "unfitted"),
    "lightgbm-wrapper": ("lightgbm", "classes"),
    "lightgbm-booster": ("lightgbm", "booster"),
    "catboost": ("catboost", "classes"),
}
DATA = {"onnx": ("onnx", "model"), "pillow": ("pillow", "palette"), "pillow-array": ("pillow", "cmyk")}
PARAMS = {"n_estimators", "max_depth", "n_jobs", "missing", "iterations", "thread_count"}


def figure() -> Any:
    import plotly.graph_objects as go

    made = go.Figure([go.Scatter(x=np.arange(3), y=(1.5, None), customdata=np.array(["a", (1,)], object), name="é")])
    made.layout.template = None
    return made


def value_of(name: str) -> Any:
    library, kind = {**MODELS, **DATA}.get(name, ("plotly", ""))
    makers: dict[str, Callable[[], Any]] = getattr(libraries, library)()
    return figure() if name == "plotly" else makers[kind]()


def answers(model: Any) -> dict[str, Any]:
    """What is known of a model without training it again."""
    about: dict[str, Any] = {"class": type(model).__name__}
    if hasattr(model, "get_params"):
        about["params"] = {k: repr(v) for k, v in model.get_params().items() if k in PARAMS}
    data: Any = libraries.X[:20]
    if type(model).__module__ == "xgboost.core":
        import xgboost

        data = xgboost.DMatrix(data)
    if Model(model).describe()["fitted"]:
        about["predicted"] = np.asarray(model.predict(data)).tolist()
    return about


def golden(name: str) -> tuple[Any, dict[str, Any]]:
    folder = GOLDEN / name
    about = json.loads((folder / "saved.json").read_text())
    paths = [path.name for path in folder.iterdir() if path.name != "saved.json"]
    entries = {path: FileEntry(path, *digest_file(folder / path)) for path in paths}
    return load(about["materializer"], about["version"], FileReader(folder, entries), about["spec"]), about


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_version_one_predicts_as_it_did(name: str) -> None:
    pytest.importorskip(MODELS[name][0], reason=f"the extra {MODELS[name][0]} is not installed")
    loaded, about = golden(name)
    found, expected = answers(loaded), about["answers"]
    one, other = (np.array(answer.pop("predicted", [])) for answer in (found, expected))
    assert found == expected
    assert (one == other).all() if one.dtype.kind == "U" else np.allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("name", [*DATA, "plotly"])
def test_what_version_one_wrote_is_read_as_it_was(name: str) -> None:
    pytest.importorskip("PIL" if name.startswith("pillow") else name, reason=f"the extra {name} is not installed")
    assert difference(value_of(name), golden(name)[0]) is None


if __name__ == "__main__":
    for name in [*MODELS, *DATA, "plotly"]:
        if not (GOLDEN / name).exists():
            (GOLDEN / name).mkdir(parents=True)
            value = value_of(name)
            saved = save(value, FileWriter(GOLDEN / name))
            about = {"materializer": saved.materializer, "version": saved.materializer_version, "spec": saved.spec}
            if name in MODELS:
                about["answers"] = answers(value)
            (GOLDEN / name / "saved.json").write_text(json.dumps(about) + "\n")
