"""scikit-learn estimators as skops: no pickle, the same bytes for equal models, loadable by MLflow.

Saving loads the file again and compares: skops changes some attributes without a word (``False`` as a dictionary key
comes back as ``True``), and such a model is refused. Beside ``model.skops`` stands what makes the folder an MLflow
model; see ``mlmodel``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.errors import MaterializationError, MissingExtra
from .base import Spec
from .files import FileReader, FileWriter
from .identical import difference
from .mlmodel import by_feature, read_all, write_mlmodel

__all__ = ["SklearnMaterializer", "dump", "undump"]

_SHOWN_CLASSES = 100


class SklearnMaterializer:
    """Estimators, pipelines and searches of scikit-learn's own classes; others need a materializer or pickle."""

    name: ClassVar[str] = "sklearn"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``model.skops`` and MLflow's files. Raises MaterializationError, naming what is not safe to load."""
        data, trusted = dump(value)
        files.write("model.skops", data)
        self._write_for_mlflow(value, files, trusted, len(data))
        return {}

    def _write_for_mlflow(self, value: Any, files: FileWriter, trusted: list[str], size: int) -> None:
        import sklearn

        about = {
            "code": None,
            "pickled_model": "model.skops",
            "serialization_format": "skops",
            "sklearn_version": sklearn.__version__,
            "skops_trusted_types": trusted,
        }
        packages = ("scikit-learn", "skops", "numpy", "scipy")
        predicts = hasattr(value, "predict")
        write_mlmodel(files, "sklearn", about, data="model.skops", size=size, packages=packages, predicts=predicts)

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The estimator, from the verified bytes, after the same audit as when it was saved."""
        return undump(read_all(files)["model.skops"])

    def describe(self, value: Any) -> dict[str, Any]:
        """Hyperparameters, whether it is fitted, features, classes and feature importances where it has them."""
        parameters = {name: part for name, part in value.get_params().items() if not hasattr(part, "get_params")}
        about: dict[str, Any] = {"hyperparameters": parameters, "fitted": _is_fitted(value)}
        if not about["fitted"]:
            return about
        if hasattr(value, "n_features_in_"):
            about["n_features"] = int(value.n_features_in_)
        if len(getattr(value, "classes_", ())):
            about["classes"] = [
                getattr(item, "tolist", lambda item=item: item)() for item in value.classes_[:_SHOWN_CLASSES]
            ]
        last = getattr(value, "_final_estimator", value)
        importances = getattr(last, "feature_importances_", None)
        return about | by_feature(importances, getattr(last, "feature_names_in_", None))


def dump(value: Any) -> tuple[bytes, list[str]]:
    """An estimator as a skops file that gives it back exactly, and the names in it to be trusted when it is loaded.

    Raises MaterializationError, naming what is not safe to load, or would not come back as it is.
    """
    skops = _skops()
    from .skops_file import MEMORY_ADDRESSES, canonical, trusted_names

    try:
        data = canonical(skops.dumps(value))
    except MaterializationError:
        raise
    except Exception as error:  # skops asks the attributes' own __reduce__ and __getstate__, which can raise anything
        raise MaterializationError(f"skops does not take it: {error}") from error
    trusted = trusted_names(data)
    changed = difference(value, skops.loads(data, trusted=trusted), ignoring=MEMORY_ADDRESSES)
    if changed:
        raise MaterializationError(f"skops would change it at {changed}")
    return data, trusted


def undump(data: memoryview) -> Any:
    """The estimator of :func:`dump`, after the same audit."""
    skops = _skops()
    from .skops_file import trusted_names

    content = bytes(data)
    return skops.loads(content, trusted=trusted_names(content))


def _skops() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it walks every module of scikit-learn, deprecated ones too
            import skops.io
    except ImportError as error:
        raise MissingExtra("Storing scikit-learn models without pickle", "sklearn", "skops") from error
    return skops.io


def _is_fitted(value: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(value)
    except (NotFittedError, TypeError):
        return False
    return True
