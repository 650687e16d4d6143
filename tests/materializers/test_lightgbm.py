from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailrace import MaterializationError
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from . import libraries
from .libraries import X, Y, digests, digests_of_another_process, loaded_with, saved_in

VALUES = libraries.lightgbm()


@pytest.fixture(scope="module")
def classifier() -> Any:
    return VALUES["classifier"]()


@pytest.mark.parametrize("name", VALUES)
def test_a_model_comes_back_in_every_attribute_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name]())


def test_the_wrapper_that_model_text_forgets_is_kept() -> None:
    model = VALUES["classes"]()
    loaded = restored(model)
    assert type(loaded) is lgb.LGBMClassifier
    assert loaded.get_params() == model.get_params()
    assert (loaded.predict(X) == model.predict(X)).all()
    assert set(loaded.predict(X)) == {"a", "b", "c"}


def test_gains_and_contributions_of_a_booster_are_kept_to_the_last_bit() -> None:
    booster = VALUES["booster"]()
    loaded = restored(booster)
    assert (loaded.feature_importance("gain") == booster.feature_importance("gain")).all()
    assert (loaded.predict(X, pred_contrib=True) == booster.predict(X, pred_contrib=True)).all()


def test_the_early_stop_of_a_booster_is_kept(tmp_path: Path) -> None:
    stop = lgb.early_stopping(1, verbose=False)
    watched = [lgb.Dataset(-X, Y)]
    params = {"verbose": -1, "num_threads": 1, "metric": "l1"}
    booster = lgb.train(params, lgb.Dataset(X, Y), 20, valid_sets=watched, callbacks=[stop])
    loaded = check_round_trip(booster)
    assert (loaded.best_iteration, loaded.best_score) == (booster.best_iteration, booster.best_score)
    about = saved_in(tmp_path / "model", booster)[0].metadata
    assert about["best_iteration"] == booster.best_iteration


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("lightgbm") == digests("lightgbm")


def test_a_booster_in_a_pipeline_is_stored_with_it() -> None:
    pipeline = make_pipeline(StandardScaler(), lgb.LGBMRegressor(n_estimators=3, verbose=-1)).fit(X, Y)
    assert (check_round_trip(pipeline).predict(X) == pipeline.predict(X)).all()


# ---- readers


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["classes", "regressor", "booster"])
def test_mlflow_loads_the_artifacts_folder_as_its_own(name: str, tmp_path: Path) -> None:
    import mlflow.lightgbm
    import mlflow.pyfunc

    model = VALUES[name]()
    saved_in(tmp_path / "model", model)
    folder = str(tmp_path / "model")
    loaded = mlflow.lightgbm.load_model(folder)
    assert type(loaded) is type(model)
    assert (loaded.predict(X) == model.predict(X)).all()
    assert (mlflow.pyfunc.load_model(folder).predict(X) == model.predict(X)).all()


def test_plain_lightgbm_reads_a_boosters_file(tmp_path: Path) -> None:
    booster = VALUES["booster"]()
    saved_in(tmp_path / "model", booster)
    plain = lgb.Booster(model_file=tmp_path / "model" / "model.txt")
    assert (plain.predict(X) == booster.predict(X)).all()


# ---- metadata


def test_the_metadata_are_those_of_the_model(classifier: Any, tmp_path: Path) -> None:
    about = saved_in(tmp_path / "model", classifier)[0].metadata
    assert about["hyperparameters"]["n_estimators"] == 4
    assert (about["fitted"], about["objective"], about["trees"], about["n_features"]) == (True, "binary", 4, 5)
    assert about["n_classes"] == 2
    importances = classifier.feature_importances_.tolist()
    assert about["feature_importances"] == dict(zip(classifier.feature_name_, importances, strict=True))


def test_a_booster_tells_its_shares_of_the_gain(tmp_path: Path) -> None:
    about = saved_in(tmp_path / "model", VALUES["booster"]())[0].metadata
    assert sum(about["feature_importances"].values()) == pytest.approx(1)


def test_a_model_that_is_not_fitted_says_so(tmp_path: Path) -> None:
    assert saved_in(tmp_path / "model", VALUES["unfitted"]())[0].metadata["fitted"] is False


# ---- refused


class Mine(lgb.LGBMClassifier):
    pass


class MyBooster(lgb.Booster):
    pass


def objective(truth: Any, guess: Any) -> Any:
    return guess - truth, np.ones_like(guess)


def training() -> Any:
    return lgb.train({"verbose": -1}, lgb.Dataset(X, Y), 2, keep_training_booster=True)


REFUSED: dict[str, tuple[Any, str]] = {
    "an objective of the user's": (lambda: lgb.LGBMRegressor(objective=objective), "objective"),
    "a class of the user's": (Mine, "Mine"),
    "a booster of the user's": (lambda: MyBooster(model_str=VALUES["booster"]().model_to_string()), "MyBooster"),
    "a booster with its training data": (training, "free_dataset()"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_code_or_cannot_be_kept_is_refused_by_name(case: str) -> None:
    make, mention = REFUSED[case]
    check_refused(make(), mention, "allow_pickle")


def test_a_booster_that_let_go_of_its_training_data_is_kept() -> None:
    booster = training()
    booster.free_dataset()
    check_round_trip(booster)


# ---- hostile files


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["booster"]())
    for content in (b"", b"tree\n", b"\xff\x00", b"\x80\x04cos\nsystem\n"):
        with pytest.raises(MaterializationError):
            loaded_with(tmp_path / "model", saved, {"model.txt": content})


def test_the_state_cannot_point_a_booster_at_memory(tmp_path: Path) -> None:
    booster = VALUES["booster"]()
    saved, _ = saved_in(tmp_path / "model", booster)
    state = json.loads((tmp_path / "model" / "state.json").read_text())
    state["_handle"] = 4096
    loaded = loaded_with(tmp_path / "model", saved, {"state.json": json.dumps(state).encode()})
    assert (loaded.predict(X) == booster.predict(X)).all()


@pytest.mark.parametrize("handle", ["4096", '"tree"'])
def test_a_hostile_skops_file_cannot_point_a_booster_at_memory(handle: str, tmp_path: Path) -> None:
    from .test_sklearn import hostile_file, node, state

    saved, _ = saved_in(tmp_path / "model", VALUES["unfitted"]())
    number = node("JsonNode", "builtins.str", content=handle, is_json=True)
    data = hostile_file(node("ObjectNode", "lightgbm.basic.Booster", content=state(_handle=number)))
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"model.skops": data})
