from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailrace import MaterializationError, Model
from tailrace.materializers.registry import choose
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from . import libraries
from .libraries import X, Y, digests, digests_of_another_process, loaded_with, saved_in

xgb = pytest.importorskip("xgboost", reason="the extra xgboost is not installed")

VALUES = libraries.xgboost()


@pytest.fixture(scope="module")
def classifier() -> Any:
    return VALUES["classifier"]()


@pytest.mark.parametrize("name", VALUES)
def test_a_model_comes_back_in_every_attribute_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name]())


def test_the_parameters_that_save_model_forgets_are_kept(classifier: Any) -> None:
    loaded = restored(classifier)
    assert type(loaded) is xgb.XGBClassifier
    assert (loaded.n_estimators, loaded.n_jobs, loaded.random_state) == (4, 1, 3)
    assert (loaded.predict_proba(X) == classifier.predict_proba(X)).all()
    assert loaded.evals_result() == classifier.evals_result()


def test_training_goes_on_from_a_loaded_booster_as_it_would_have() -> None:
    booster = VALUES["booster"]()
    booster.set_param({"max_depth": 2, "eta": 0.05})
    loaded = restored(booster)
    data = xgb.DMatrix(X, Y)
    for one in (booster, loaded):
        one.update(data, 4)
    assert loaded.save_raw() == booster.save_raw()


def test_attributes_that_a_user_sets_on_a_booster_are_kept() -> None:
    booster = VALUES["booster"]()
    booster.set_attr(why="because")
    booster.remark = {"of": ("mine",)}
    loaded = restored(booster)
    assert (loaded.attr("why"), loaded.remark) == ("because", {"of": ("mine",)})


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("xgboost") == digests("xgboost")


def test_a_booster_in_a_pipeline_is_stored_with_it() -> None:
    pipeline = make_pipeline(StandardScaler(), VALUES["classifier"]()).fit(X, Y)
    assert (check_round_trip(pipeline).predict(X) == pipeline.predict(X)).all()


# ---- readers


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["classifier", "classes", "regressor", "booster"])
def test_mlflow_loads_the_artifacts_folder_as_its_own(name: str, tmp_path: Path) -> None:
    import mlflow.pyfunc
    import mlflow.xgboost

    model = VALUES[name]()
    saved_in(tmp_path, model)
    wide = name != "regressor"
    data = X if wide else libraries.frame()[["alpha", "beta"]]
    expected = model.predict(xgb.DMatrix(data) if name == "booster" else data)
    loaded = mlflow.xgboost.load_model(str(tmp_path))
    assert type(loaded) is type(model)
    assert (loaded.predict(xgb.DMatrix(data) if name == "booster" else data) == expected).all()
    assert (mlflow.pyfunc.load_model(str(tmp_path)).predict(data) == expected).all()


def test_a_model_that_is_not_fitted_is_no_mlflow_model(tmp_path: Path) -> None:
    assert list(saved_in(tmp_path, VALUES["unfitted"]())[1]) == ["state.json"]


def test_plain_xgboost_reads_the_file(classifier: Any, tmp_path: Path) -> None:
    saved_in(tmp_path, classifier)
    plain = xgb.XGBClassifier()
    plain.load_model(tmp_path / "model.ubj")
    assert (plain.predict(X) == classifier.predict(X)).all()
    assert yaml.safe_load((tmp_path / "MLmodel").read_text())["flavors"]["xgboost"]["data"] == "model.ubj"


# ---- metadata


def test_the_metadata_are_those_of_the_model(classifier: Any, tmp_path: Path) -> None:
    about = saved_in(tmp_path, classifier)[0].metadata
    assert about["hyperparameters"]["n_estimators"] == 4
    assert (about["fitted"], about["objective"], about["trees"], about["n_features"]) == (True, "binary:logistic", 4, 4)
    assert about["n_classes"] == 2
    assert about["feature_importances"] == pytest.approx(classifier.feature_importances_.tolist())


def test_a_booster_tells_its_importances_by_name(tmp_path: Path) -> None:
    booster = xgb.train({"nthread": 1}, xgb.DMatrix(libraries.frame()[["alpha", "beta"]], Y), 3)
    about = saved_in(tmp_path, booster)[0].metadata
    assert about["trees"] == 3
    assert sum(about["feature_importances"].values()) == pytest.approx(1)
    assert set(about["feature_importances"]) == {"alpha", "beta"}


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_of_model_is_described(name: str, tmp_path: Path) -> None:
    about = saved_in(tmp_path, VALUES[name]())[0].metadata
    assert about["fitted"] is (name != "unfitted")
    assert "objective" in about or name == "unfitted"


def test_the_artifact_type_knows_that_a_booster_is_fitted() -> None:
    assert Model(VALUES["booster"]()).describe()["fitted"] is True
    assert Model(VALUES["unfitted"]()).describe()["fitted"] is False


def test_the_early_stop_is_told(tmp_path: Path) -> None:
    model = VALUES["stopped"]()
    assert saved_in(tmp_path, model)[0].metadata["best_iteration"] == model.best_iteration


# ---- refused


class Mine(xgb.XGBClassifier):  # type: ignore[misc, name-defined]
    pass


def objective(truth: Any, guess: Any) -> Any:
    return guess - truth, np.ones_like(guess)


REFUSED: dict[str, tuple[Any, str]] = {
    "an objective of the user's": (lambda: xgb.XGBRegressor(objective=objective), "['objective'] it is a function"),
    "a callback": (lambda: xgb.XGBRegressor(callbacks=[xgb.callback.EvaluationMonitor()]), "EvaluationMonitor"),
    "a class of the user's": (Mine, "Mine"),
    "a booster without training": (lambda: xgb.Booster({"max_depth": 2}), "was it trained?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_code_or_cannot_be_kept_is_refused_by_name(case: str) -> None:
    make, mention = REFUSED[case]
    check_refused(make(), mention, "allow_pickle")


def test_the_type_is_known_before_the_library_is_imported() -> None:
    assert choose("xgboost.sklearn.XGBClassifier").materializer == "xgboost"


# ---- hostile files


class Ran:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("content", [pickle.dumps(Ran()), b"", b"binf" + bytes(200), b"{L\x00\x00"])
def test_a_file_that_is_no_model_is_an_error_and_runs_nothing(content: bytes, classifier: Any, project: Path) -> None:
    saved, _ = saved_in(project / "model", classifier)
    with pytest.raises(MaterializationError):
        loaded_with(project / "model", saved, {"model.ubj": content})
    assert not (project / "ran").exists()


def test_the_state_cannot_point_a_booster_at_memory(classifier: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path, classifier)
    state = json.loads((tmp_path / "state.json").read_text())
    state["booster"]["handle"] = state["wrapper"]["_Booster"] = 4096
    loaded = loaded_with(tmp_path, saved, {"state.json": json.dumps(state).encode()})
    assert (loaded.predict(X) == classifier.predict(X)).all()


@pytest.mark.parametrize("handle", ["4096", '"model"'])
def test_a_hostile_skops_file_cannot_point_a_booster_at_memory(handle: str, tmp_path: Path) -> None:
    from .test_sklearn import hostile_file, node, state

    saved, _ = saved_in(tmp_path / "model", make_pipeline(StandardScaler()))
    number = node("JsonNode", "builtins.str", content=handle, is_json=True)
    data = hostile_file(node("ObjectNode", "xgboost.core.Booster", content=state(handle=number)))
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"model.skops": data})
