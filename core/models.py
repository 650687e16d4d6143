"""What was trained, and the state that training can go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .asset import Asset, jsonable, kind_of, scalar
from .detect import model_framework
from .errors import AssetError

__all__ = ["Checkpoint", "Model"]

_FEATURES = 1000  # importances of wider models are left out of the description
_PARAMS = {"sklearn", "xgboost", "lightgbm", "catboost"}


class Model(Asset):
    """A trained model: ``.data`` is the estimator itself (``model.data.predict(...)``).

    ``framework`` is detected from the estimator's class when it is not given. ``serving_config`` and the schemas of
    input and output are JSON-able and for whatever serves the model. :meth:`describe` knows more: see there.
    """

    fields = ("framework", "serving_config", "input_schema", "output_schema")

    def __init__(
        self,
        data: Any = None,
        name: str | None = None,
        version: str | None = None,
        framework: str | None = None,
        serving_config: Mapping[str, Any] | None = None,
        input_schema: Any = None,
        output_schema: Any = None,
        metadata: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(data, name, version, metadata=metadata, **common)
        self.framework = framework or model_framework(data)
        self.serving_config = dict(serving_config) if serving_config else None
        self.input_schema = input_schema
        self.output_schema = output_schema

    def _accept(self, data: Any) -> Any:
        if data is None:
            raise self._refuse(data, "the estimator")
        return data

    def describe(self) -> dict[str, Any]:
        """Framework and class; hyperparameters, whether it is fitted, importances; parameters, layers, device, loss.

        Whatever the framework's objects tell without work; what they do not tell is left out.
        """
        found = {"framework": self.framework, "class": kind_of(self.data), **_details(self.data, self.framework)}
        return {name: value for name, value in found.items() if value is not None}


def _details(model: Any, framework: str) -> dict[str, Any]:
    if framework in _PARAMS:
        return {
            "hyperparameters": _told(lambda: _hyperparameters(model)),
            "fitted": _told(lambda: _fitted(model)),
            "feature_importances": _told(lambda: _importances(model)),
        }
    if framework in {"torch", "transformers"}:
        return {
            "parameters": _told(lambda: sum(part.numel() for part in model.parameters())),
            "trainable_parameters": _told(
                lambda: sum(part.numel() for part in model.parameters() if part.requires_grad)
            ),
            "layers": _told(lambda: sum(1 for part in model.modules() if not any(True for _ in part.children()))),
            "device": _told(lambda: str(next(iter(model.parameters())).device)),
            "dtype": _told(lambda: str(next(iter(model.parameters())).dtype)),
            "model_type": _told(lambda: str(model.config.model_type)),
        }
    if framework in {"keras", "tensorflow"}:
        return {
            "parameters": _told(lambda: int(model.count_params())),
            "layers": _told(lambda: len(model.layers)),
            "optimizer": _told(lambda: type(model.optimizer).__name__ if model.optimizer else None),
            "loss": _told(lambda: _name(model.loss)),
            "metrics": _told(lambda: [str(name) for name in model.metrics_names]),
        }
    return {}


def _told(ask: Callable[[], Any]) -> Any:
    """The answer, or None from an object that has none: a description is for people and never fails a step."""
    try:
        return ask()
    except Exception:  # whatever a foreign object raises when it is asked about itself
        return None


def _hyperparameters(model: Any) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in sorted(model.get_params().items())}


def _plain(value: Any) -> Any:
    """As JSON has it; else the text of what it is, without addresses."""
    try:
        return jsonable(value, "")
    except AssetError:
        return repr(value) if isinstance(value, float) else kind_of(value)


def _fitted(model: Any) -> bool:
    for name in ("__sklearn_is_fitted__", "is_fitted", "num_boosted_rounds", "num_trees"):  # the last two: boosters'
        if hasattr(model, name):
            return bool(getattr(model, name)())
    return any(name.endswith("_") and not name.startswith("_") for name in vars(model))


def _importances(model: Any) -> dict[str, float] | None:
    values = getattr(model, "feature_importances_", None)
    if values is None or len(values) > _FEATURES:
        return None
    known = (getattr(model, name, None) for name in ("feature_names_in_", "feature_names_"))  # the second: CatBoost's
    names = next((names for names in known if names is not None), range(len(values)))
    return {str(name): float(value) for name, value in zip(names, values, strict=True)}


def _name(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


class Checkpoint(Asset):
    """The state of a training that can be resumed, at an epoch or a step: ``Checkpoint(state, epoch=3)``."""

    fields = ("epoch", "step")

    def __init__(
        self,
        data: Any = None,
        epoch: int | None = None,
        step: int | None = None,
        *,
        name: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(data, name, **common)
        self.epoch: int | None = scalar(epoch)
        self.step: int | None = scalar(step)

    @property
    def state(self) -> Any:
        """What training goes on from."""
        return self.data

    def _accept(self, data: Any) -> Any:
        if data is None:
            raise self._refuse(data, "the state of a training")
        return data
