from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailrace import MaterializationError, Model
from tailrace.materializers.identical import difference
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from . import libraries
from .libraries import X, digests, digests_of_another_process, loaded_with, saved_in

VALUES = libraries.catboost()


@pytest.fixture(scope="module")
def classifier() -> Any:
    return VALUES["classifier"]()


def same(one: Any, other: Any) -> bool:
    """Trees and notes as CatBoost compares them, and every attribute of the Python object."""
    attributes = [{**vars(model), "_object": None} for model in (one, other)]
    equal = type(one) is type(other) and difference(*attributes) is None
    return equal and (not one.is_fitted() or (one == other and dict(one.get_metadata()) == dict(other.get_metadata())))


@pytest.mark.parametrize("name", VALUES)
def test_a_model_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same)


def test_the_parameters_and_features_that_load_model_forgets_are_kept(classifier: Any) -> None:
    loaded = restored(classifier)
    assert type(loaded) is catboost.CatBoostClassifier
    assert loaded.get_params() == classifier.get_params()
    assert loaded.n_features_in_ == 4
    assert (loaded.predict_proba(X) == classifier.predict_proba(X)).all()
    assert (loaded.feature_importances_ == classifier.feature_importances_).all()


def test_what_catboost_cannot_give_back_is_this_and_no_more() -> None:
    """Documented: what it said of the evaluation set, and the last bit of some metrics."""
    model = VALUES["watched"]()
    loaded = restored(model)
    assert len(model.get_test_eval()) == 200
    with pytest.raises(catboost.CatBoostError, match="without an eval set"):
        loaded.get_test_eval()
    for name, history in model.evals_result_.items():
        assert loaded.evals_result_[name]["RMSE"] == pytest.approx(history["RMSE"], rel=1e-15)


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("catboost") == digests("catboost")


# ---- readers


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["classes", "regressor", "plain"])
def test_mlflow_loads_the_artifacts_folder_as_its_own(name: str, tmp_path: Path) -> None:
    import mlflow.catboost
    import mlflow.pyfunc

    model = VALUES[name]()
    saved_in(tmp_path / "model", model)
    folder = str(tmp_path / "model")
    loaded = mlflow.catboost.load_model(folder)
    assert type(loaded) is type(model)
    assert (loaded.predict(X) == model.predict(X)).all()
    assert (mlflow.pyfunc.load_model(folder).predict(X) == model.predict(X)).all()


def test_a_model_that_is_not_fitted_is_no_mlflow_model(tmp_path: Path) -> None:
    saved, entries = saved_in(tmp_path / "model", VALUES["unfitted"]())
    assert list(entries) == ["state.json"]
    assert saved.metadata["fitted"] is False


# ---- metadata


def test_the_metadata_are_those_of_the_model(tmp_path: Path) -> None:
    model = VALUES["categories"]()
    about = saved_in(tmp_path / "model", model)[0].metadata
    assert about["hyperparameters"]["cat_features"] == ["kind"]
    assert (about["fitted"], about["objective"], about["trees"], about["n_features"]) == (True, "Logloss", 4, 5)
    assert about["classes"] == [0, 1]
    assert about["feature_importances"] == dict(zip(model.feature_names_, model.feature_importances_, strict=True))


def test_the_artifact_type_knows_that_it_is_fitted(classifier: Any) -> None:
    assert Model(classifier).describe()["fitted"] is True
    assert Model(VALUES["unfitted"]()).describe()["fitted"] is False


# ---- refused


class Mine(catboost.CatBoostClassifier):  # type: ignore[misc]
    pass


class Metric:
    def get_final_error(self, error: float, weight: float) -> float:
        return error / weight


REFUSED: dict[str, tuple[Any, str]] = {
    "a metric of the user's": (lambda: catboost.CatBoostRegressor(eval_metric=Metric()), "Metric"),
    "a class of the user's": (Mine, "Mine"),
    "a model in a pipeline": (
        lambda: make_pipeline(StandardScaler(), catboost.CatBoostRegressor(iterations=2)),
        "CatBoostRegressor",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_code_or_cannot_be_kept_is_refused_by_name(case: str) -> None:
    make, mention = REFUSED[case]
    check_refused(make(), mention, "allow_pickle")


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", bytes(300), b"CBM1\xff\xff\xff\x7f" + bytes(40)])
def test_a_file_that_is_no_model_is_an_error(content: bytes, classifier: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", classifier)
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"model.cbm": content})


def test_weights_of_numpy_among_the_parameters_are_kept() -> None:
    check_round_trip(catboost.CatBoostClassifier(class_weights=np.array([1.0, 2.0]), depth=np.int64(3)))
