"""Values of other libraries, made the same in every process, and the digests of their files.

As a script, it prints the digests of one library's values: ``python libraries.py xgboost``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tailrace.core.refs import FileEntry
from tailrace.materializers.files import FileReader, FileWriter, digest_file
from tailrace.materializers.registry import Saved, load, save

_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(200, 4))
Y = (X[:, 0] + X[:, 1] ** 2 + _RANDOM.normal(size=200) / 4 > 0.5).astype(int)
Y3 = np.digitize(X[:, 0], [-0.5, 0.5])


def frame() -> Any:
    import pandas as pd

    made = pd.DataFrame(X, columns=["alpha", "beta", "gamma", "delta"])
    return made.assign(kind=pd.Categorical(np.where(X[:, 3] > 0, "up", "down"), categories=["up", "down"]))


Makers = OrderedDict[str, Callable[[], Any]]


def xgboost() -> Makers:
    import xgboost as xgb

    few: dict[str, Any] = {"n_estimators": 4, "max_depth": 3, "n_jobs": 1}
    watch: dict[str, Any] = {"eval_set": [(X, Y)], "verbose": False}
    data = frame()

    def booster(**params: Any) -> Any:
        return xgb.train({"nthread": 1, "verbosity": 0, **params}, xgb.DMatrix(X, Y), 4)

    return OrderedDict(
        classifier=lambda: xgb.XGBClassifier(**few, reg_lambda=np.float64(2), random_state=3).fit(X, Y, **watch),
        stopped=lambda: xgb.XGBClassifier(**few, early_stopping_rounds=1, eval_metric=["auc", "error"]).fit(
            X, Y, **watch
        ),
        classes=lambda: xgb.XGBClassifier(**few).fit(X, Y3),
        categories=lambda: xgb.XGBClassifier(**few, enable_categorical=True).fit(data, Y),
        regressor=lambda: xgb.XGBRegressor(**few, base_score=0.5).fit(data[["alpha", "beta"]], Y),
        targets=lambda: xgb.XGBRegressor(**few, multi_strategy="multi_output_tree").fit(X, np.stack([Y, Y3], 1)),
        ranker=lambda: xgb.XGBRanker(**few).fit(X, Y, qid=np.zeros(200)),
        forest=lambda: xgb.XGBRFClassifier(**few).fit(X, Y),
        linear=lambda: xgb.XGBRegressor(n_estimators=4, booster="gblinear", updater="coord_descent").fit(X, Y),
        unfitted=lambda: xgb.XGBClassifier(n_estimators=7, monotone_constraints=(1, 0, 0, -1), missing=-1.0),
        booster=booster,
        dart=lambda: booster(booster="dart", rate_drop=0.5),
        quantiles=lambda: booster(objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]),
    )


def lightgbm() -> Makers:
    import lightgbm as lgb

    few: dict[str, Any] = {"n_estimators": 4, "n_jobs": 1, "verbose": -1, "deterministic": True}
    data = frame()
    watch: dict[str, Any] = {"eval_X": (data,), "eval_y": (Y,)}

    def booster(**params: Any) -> Any:
        quiet = {"verbose": -1, "num_threads": 1, "deterministic": True, **params}
        return lgb.train(quiet, lgb.Dataset(X, Y), 4, valid_sets=[lgb.Dataset(X, Y)])

    return OrderedDict(
        classifier=lambda: lgb.LGBMClassifier(**few, class_weight={0: 1, 1: 2}).fit(data, Y, **watch),
        classes=lambda: lgb.LGBMClassifier(**few).fit(X, np.array(["a", "b", "c"])[Y3]),
        regressor=lambda: lgb.LGBMRegressor(**few, importance_type="gain").fit(X, Y),
        ranker=lambda: lgb.LGBMRanker(**few).fit(X, Y, group=[200]),
        unfitted=lambda: lgb.LGBMClassifier(n_estimators=7, min_gain_to_split=0.5),
        booster=booster,
        dart=lambda: booster(boosting="dart"),
        trees_of_lines=lambda: booster(linear_tree=True),
    )


def catboost() -> Makers:
    import catboost as cb

    few: dict[str, Any] = {"iterations": 4, "thread_count": 1, "allow_writing_files": False, "verbose": False}
    data = frame().astype({"kind": str})

    def undated(model: Any) -> Any:
        """Without the clock and the random id that CatBoost puts into each model that it trains."""
        notes = model.get_metadata()
        notes["model_guid"], notes["train_finish_time"] = "one", "now"
        return model

    return OrderedDict(
        classifier=lambda: undated(cb.CatBoostClassifier(**few, class_weights=[1, 2]).fit(X, Y)),
        classes=lambda: undated(cb.CatBoostClassifier(**few).fit(X, np.array(["a", "b", "c"])[Y3])),
        categories=lambda: undated(cb.CatBoostClassifier(**few, cat_features=["kind"]).fit(data, Y)),
        regressor=lambda: undated(cb.CatBoostRegressor(**few, loss_function="Quantile:alpha=0.2").fit(X, Y)),
        ranker=lambda: undated(cb.CatBoostRanker(**few).fit(X, Y, group_id=np.zeros(200, int))),
        watched=lambda: undated(cb.CatBoostRegressor(**few).fit(X, Y, eval_set=(X, Y))),
        plain=lambda: undated(cb.CatBoost({**few, "loss_function": "RMSE"}).fit(X, Y)),
        unfitted=lambda: cb.CatBoostRegressor(iterations=7, depth=3),
    )


def onnx() -> Makers:
    from onnx import TensorProto, helper, numpy_helper

    def model() -> Any:
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])],
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.arange(8, dtype="f4").reshape(4, 2), "w")],
        )
        made = helper.make_model(
            graph, producer_name="tests", opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        helper.set_model_props(made, {"b": "2", "a": "1"})
        return made

    return OrderedDict(model=model)


def pillow() -> Makers:
    from PIL import Image

    grey = Image.frombytes("L", (40, 5), bytes(range(200)))
    return OrderedDict(
        rgb=lambda: Image.merge("RGB", [grey, grey.rotate(180), grey]),
        palette=lambda: grey.quantize(8),
        cmyk=lambda: Image.merge("CMYK", [grey] * 4),
        numbers=lambda: grey.convert("F"),
    )


def plotly() -> Makers:
    import plotly.graph_objects as go

    return OrderedDict(lines=lambda: go.Figure([go.Scatter(x=np.arange(3), y=[1, None, 2.5], name="é")]))


def matplotlib() -> Makers:
    def picture() -> Any:
        import matplotlib.figure

        from tailrace.materializers.matplotlib import picture

        figure = matplotlib.figure.Figure(figsize=(2, 1))
        figure.subplots().plot([1, 3, 2], label="line")
        return picture(figure)

    return OrderedDict(picture=picture)


# ---- helpers of the tests


def saved_in(folder: Path, value: Any) -> tuple[Saved, dict[str, FileEntry]]:
    folder.mkdir(parents=True, exist_ok=True)
    writer = FileWriter(folder)
    saved = save(value, writer)
    return saved, {entry.path: entry for entry in writer.finish()}


def loaded_with(folder: Path, saved: Saved, changed: Mapping[str, bytes]) -> Any:
    """What is loaded when somebody who can write to the store put other content, and its digests, into the manifest."""
    for name, content in changed.items():
        (folder / name).write_bytes(content)
    entries = {path.name: FileEntry(path.name, *digest_file(path)) for path in folder.iterdir() if path.is_file()}
    return load(saved.materializer, saved.materializer_version, FileReader(folder, entries), saved.spec)


def digests(library: str) -> dict[str, dict[str, str]]:
    found = {}
    for name, make in globals()[library]().items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = {path: entry.digest for path, entry in saved_in(Path(folder), make())[1].items()}
    return found


def digests_of_another_process(library: str) -> dict[str, dict[str, str]]:
    """With another hash seed, in another zone."""
    elsewhere = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, __file__, library], stdout=subprocess.PIPE, env=elsewhere, check=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    json.dump(digests(sys.argv[1]), sys.stdout)
