"""XGBoost's boosters and scikit-learn wrappers: the trees in its own UBJSON, everything around them beside it as JSON.

XGBoost's ``save_model`` alone forgets: of a wrapper nearly all parameters (``n_estimators`` is None again), of a
booster how it was configured, so that training would go on with other parameters. Beside ``model.ubj`` stand
therefore ``config.json`` (XGBoost's own ``save_config``) and ``state.json``, the attributes of the Python objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import xgboost as xgb

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .mlmodel import by_feature, read_all, write_mlmodel
from .numpy_scalars import cell
from .tagged import decode, dumps, encode, loads

__all__ = ["XgboostMaterializer"]

_WRAPPERS: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        xgb.XGBModel,
        xgb.XGBClassifier,
        xgb.XGBRegressor,
        xgb.XGBRanker,
        xgb.XGBRFClassifier,
        xgb.XGBRFRegressor,
    )
}


class XgboostMaterializer:
    """``Booster``, ``XGBClassifier`` and the other wrappers; not Dask's, and no classes of others derived from them."""

    name: ClassVar[str] = "xgboost"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The name of the class. Raises MaterializationError for a parameter that is code (a function, a callback)."""
        kind = type(value).__name__
        if type(value) is not xgb.Booster and _WRAPPERS.get(kind) is not type(value):
            raise MaterializationError(f"it is a {kind}, derived from XGBoost's own classes with something added")
        booster = value if kind == "Booster" else vars(value).get("_Booster")
        if booster is not None and type(booster) is not xgb.Booster:
            raise MaterializationError(f"its booster is a {type(booster).__name__}, not one of XGBoost's own")
        state = {"booster": vars(booster) | {"handle": None} if booster is not None else None}
        if booster is not value:
            state["wrapper"] = vars(value) | ({"_Booster": None} if booster is not None else {})
        content = dumps(encode(state, cell))
        if booster is not None:
            _save_booster(booster, value, files)
        files.write("state.json", content)
        return {"class": kind}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The booster or wrapper, from the verified bytes; no constructor of a wrapper runs."""
        contents = read_all(files)
        state = decode(loads(contents["state.json"]))
        booster = None
        if state["booster"] is not None:
            model = bytearray(contents["model.ubj"])
            if not model.startswith(b"{"):  # XGBoost ends the process when there is nothing to read
                raise MaterializationError("model.ubj is no model of XGBoost's")
            booster = xgb.Booster()
            booster.load_model(model)
            booster.load_config(bytes(contents["config.json"]).decode())
            booster.__dict__ = {**state["booster"], "handle": booster.handle}
        if spec["class"] == "Booster":
            return booster
        cls = _WRAPPERS[spec["class"]]
        value = cls.__new__(cls)
        value.__dict__ = state["wrapper"] | ({"_Booster": booster} if booster is not None else {})
        return value

    def describe(self, value: Any) -> dict[str, Any]:
        """Hyperparameters, whether it is trained, objective, trees, features, classes, and importances (by gain)."""
        wrapped = not isinstance(value, xgb.Booster)
        about: dict[str, Any] = {"hyperparameters": value.get_params()} if wrapped else {}
        booster = vars(value).get("_Booster") if wrapped else value
        about["fitted"] = booster is not None
        if booster is None:
            return about
        config = loads(booster.save_config().encode())["learner"]
        about["objective"] = config["objective"]["name"]
        about["rounds"] = booster.num_boosted_rounds()
        about["n_features"] = booster.num_features()
        model = config["gradient_booster"]
        model = model.get("gbtree", model)  # of dart it is one level deeper
        if "gbtree_model_param" in model:
            about["trees"] = int(model["gbtree_model_param"]["num_trees"])
        if "best_iteration" in booster.attributes():
            about["best_iteration"] = booster.best_iteration
        if hasattr(value, "n_classes_"):
            about["n_classes"] = int(value.n_classes_)
        return about | by_feature(_importances(value, booster), booster.feature_names)


def _save_booster(booster: Any, value: Any, files: FileWriter) -> None:
    try:
        model, config = booster.save_raw("ubj"), booster.save_config()
    except xgb.core.XGBoostError as error:
        raise MaterializationError(f"XGBoost does not save it; was it trained? ({_first_line(error)})") from error
    files.write("model.ubj", model)
    files.write("config.json", config.encode())
    about = {
        "code": None,
        "data": "model.ubj",
        "model_class": f"{type(value).__module__}.{type(value).__name__}",
        "model_format": "ubj",
        "xgb_version": xgb.__version__,
    }
    packages = ("xgboost", "xgboost-cpu", "numpy", *(["scikit-learn"] if value is not booster else []))
    write_mlmodel(files, "xgboost", about, data="model.ubj", size=len(model), packages=packages, predicts=True)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _importances(value: Any, booster: Any) -> Any:
    """A wrapper's own; of a booster each feature's share of the gain, nothing for a feature without a split."""
    try:
        if value is not booster:
            own = value.feature_importances_
            return own if own.ndim == 1 else None
        scores = booster.get_score(importance_type="gain")
    except xgb.core.XGBoostError:  # some kinds of trees have none
        return None
    names = booster.feature_names or [f"f{index}" for index in range(booster.num_features())]
    total = sum(scores.values()) if set(scores) <= set(names) else 0
    return [scores.get(name, 0) / total for name in names] if total else None
