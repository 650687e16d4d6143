"""CatBoost's models in its own binary format, with the parameters and attributes that this forgets beside it.

CatBoost itself cannot give back two things, whatever the format: what ``get_test_eval()`` says of the data that
training was evaluated on; and the history of metrics, where its reader of numbers is off in the last bit of some. It
writes when it trained a model, and a random id, into the model: training twice gives two models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import catboost

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .mlmodel import by_feature, read_all, write_mlmodel
from .numpy_scalars import cell
from .tagged import decode, dumps, encode, loads

__all__ = ["CatboostMaterializer"]

_CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        catboost.CatBoost,
        catboost.CatBoostClassifier,
        catboost.CatBoostRegressor,
        catboost.CatBoostRanker,
    )
}


class CatboostMaterializer:
    """``CatBoost``, ``CatBoostClassifier``, ``CatBoostRegressor`` and ``CatBoostRanker``."""

    name: ClassVar[str] = "catboost"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The name of the class. Raises MaterializationError for a parameter that is code (an objective, a metric)."""
        kind = type(value).__name__
        if _CLASSES.get(kind) is not type(value):
            raise MaterializationError(f"it is a {kind}, derived from CatBoost's own classes with something added")
        state = dumps(encode({**vars(value), "_object": None}, cell))
        fitted = bool(value.is_fitted())
        if fitted:
            self._save_model(value, files)
        files.write("state.json", state)
        return {"class": kind, "fitted": fitted}

    def _save_model(self, value: Any, files: FileWriter) -> None:
        again = _from_bytes(type(value), value._serialize_model())
        if again != value:
            raise MaterializationError("CatBoost's own format would change it")
        data = again._serialize_model()  # the order in which a model keeps notes about itself is settled by loading it
        files.write("model.cbm", data)
        about = {
            "catboost_version": catboost.__version__,
            "code": None,
            "data": "model.cbm",
            "model_type": type(value).__name__,
            "save_format": "cbm",
        }
        write_mlmodel(
            files,
            "catboost",
            about,
            data="model.cbm",
            size=len(data),
            packages=("catboost", "numpy"),
            predicts=True,
        )

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The model, from the verified bytes."""
        contents = read_all(files)
        state = decode(loads(contents["state.json"]))
        cls = _CLASSES[spec["class"]]
        value = _from_bytes(cls, bytes(contents["model.cbm"])) if spec["fitted"] else cls()
        value.__dict__ = {**state, "_object": value._object}
        return value

    def describe(self, value: Any) -> dict[str, Any]:
        """Hyperparameters, whether it is trained, trees, loss, features, classes, and importances if it has them."""
        about: dict[str, Any] = {"hyperparameters": value.get_params(), "fitted": bool(value.is_fitted())}
        if not about["fitted"]:
            return about
        names = value.feature_names_
        about["objective"] = value._object._get_loss_function_name() or None
        about["trees"] = value.tree_count_
        about["n_features"] = len(names)
        if value.best_iteration_ is not None:
            about["best_iteration"] = value.best_iteration_
        if len(value.classes_):
            about["classes"] = value.classes_[:100].tolist()
        return about | by_feature(getattr(value, "_prediction_values_change", None), names)


def _from_bytes(cls: Any, data: bytes) -> Any:
    return cls().load_model(blob=data)
