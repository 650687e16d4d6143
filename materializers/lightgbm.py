"""LightGBM's boosters as its own model text, its scikit-learn wrappers as skops.

The text alone forgets the wrapper, and of a booster its best iteration, scores and parameters; these stand beside it
in ``state.json``. Wrappers hold estimators of scikit-learn too; MLflow loads them from a file as ``sklearn`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import lightgbm as lgb

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .mlmodel import by_feature, read_all, write_mlmodel
from .numpy_scalars import cell
from .sklearn import dump, undump
from .tagged import decode, dumps, encode, loads

__all__ = ["LightgbmMaterializer"]


class LightgbmMaterializer:
    """``Booster``, ``LGBMClassifier`` and the other wrappers; not Dask's."""

    name: ClassVar[str] = "lightgbm"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``model.txt`` and ``state.json`` of a booster, ``model.skops`` of a wrapper.

        Raises MaterializationError for a parameter that is code, and for a booster that still holds training data.
        """
        booster = value if isinstance(value, lgb.Booster) else getattr(value, "_Booster", None)
        if booster is not None and {"train_set", "valid_sets"} & set(vars(booster)):
            raise MaterializationError("it holds the data that it is trained with; call free_dataset() on the booster")
        if booster is not value:
            return self._save_wrapper(value, files)
        if type(value) is not lgb.Booster:
            raise MaterializationError(f"it is a {type(value).__name__}, derived from Booster with something added")
        state = dumps(encode({**vars(value), "_handle": None}, cell))
        text = booster.model_to_string(num_iteration=-1).encode()
        files.write("model.txt", text)
        files.write("state.json", state)
        _write_for_mlflow(value, files, "model.txt", len(text), {})
        return {"class": "Booster"}

    def _save_wrapper(self, value: Any, files: FileWriter) -> Spec:
        data, trusted = dump(value)
        files.write("model.skops", data)
        about = {"serialization_format": "skops", "skops_trusted_types": trusted}
        _write_for_mlflow(value, files, "model.skops", len(data), about)
        return {}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The booster or wrapper, from the verified bytes."""
        contents = read_all(files)
        if "class" not in spec:
            return undump(contents["model.skops"])
        booster = lgb.Booster(model_str=bytes(contents["model.txt"]).decode())
        made = vars(booster)
        state = {**decode(loads(contents["state.json"])), "_handle": made["_handle"]}
        booster.__dict__ = state | {name: part for name, part in made.items() if name not in state}
        return booster

    def describe(self, value: Any) -> dict[str, Any]:
        """Hyperparameters, whether it is trained, objective, trees, features, classes, and importances.

        A wrapper's importances are its own (splits, unless it was told otherwise), a booster's are shares of the gain.
        """
        wrapped = not isinstance(value, lgb.Booster)
        about: dict[str, Any] = {"hyperparameters": value.get_params() if wrapped else value.params}
        booster = getattr(value, "_Booster", None) if wrapped else value
        about["fitted"] = booster is not None
        if booster is None:
            return about
        names = booster.feature_name()
        importances = value.feature_importances_ if wrapped else _shares(booster.feature_importance("gain"))
        about["objective"] = value.objective_ if wrapped else value.params.get("objective")
        about["rounds"] = booster.current_iteration()
        about["trees"] = booster.num_trees()
        about["n_features"] = len(names)
        if booster.best_iteration > 0:
            about["best_iteration"] = booster.best_iteration
        if hasattr(value, "n_classes_"):
            about["n_classes"] = int(value.n_classes_)
        return about | by_feature(importances, names)


def _shares(gains: Any) -> Any:
    total = gains.sum()
    return gains / total if total else None


def _write_for_mlflow(value: Any, files: FileWriter, data: str, size: int, more: Mapping[str, Any]) -> None:
    about = {
        "code": None,
        "data": data,
        "lgb_version": lgb.__version__,
        "model_class": f"{type(value).__module__}.{type(value).__name__}",
        **more,
    }
    packages = ("lightgbm", "numpy", "scipy", *(["scikit-learn", "skops"] if more else []))
    write_mlmodel(files, "lightgbm", about, data=data, size=size, packages=packages, predicts=True)
