"""How MLflow loads the models for which it wants a pickle: ``mlflow.pyfunc.load_model(uri)`` finds this module by name.

It is named in the ``MLmodel`` file of PyTorch's modules and of Hugging Face's models; see ``mlmodel``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.refs import FileEntry
from .files import FileReader, FileWriter, digest_file
from .mlmodel import write_mlmodel
from .registry import load

__all__ = ["write_torch_mlmodel"]

_MLFLOW_FILES = {"MLmodel", "requirements.txt", "python_env.yaml"}


def write_torch_mlmodel(files: FileWriter, about: dict[str, Any], *, size: int, packages: tuple[str, ...]) -> None:
    """MLflow's files for a model that is loaded by this module; ``about`` is the materializer, version and spec."""
    found = ("tailrace", "torch", "numpy", *packages)
    write_mlmodel(files, "tailrace", about, data=None, size=size, packages=found, predicts=True, loader=__name__)


def _load_pyfunc(path: str) -> Any:
    """Called by MLflow with the folder of the model."""
    import yaml

    folder = Path(path)
    about = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["tailrace"]
    names = (item.relative_to(folder).as_posix() for item in sorted(folder.rglob("*")) if item.is_file())
    entries = {name: FileEntry(name, *digest_file(folder / name)) for name in names if name not in _MLFLOW_FILES}
    return _Predictor(load(about["materializer"], about["version"], FileReader(folder, entries), about["spec"]))


class _Predictor:
    """A module as MLflow wants one: arrays and frames in, arrays and frames out, nothing is trained."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def predict(self, data: Any, params: Any = None) -> Any:
        """The output for an array, or a frame of numbers; a dict of arrays is passed by name (``input_ids=...``)."""
        import torch

        with torch.no_grad():
            if isinstance(data, dict):
                found: Any = self.model(**{name: torch.as_tensor(item) for name, item in data.items()})
            else:
                found = self.model(torch.as_tensor(self._numbers(data)))
        first: Any = found[0] if isinstance(found, tuple | list) else found
        return self._like(getattr(found, "logits", first).numpy(), data)

    def _numbers(self, data: Any) -> Any:
        dtypes = {part.dtype for part in self.model.parameters() if part.is_floating_point()}
        array: Any = data.to_numpy() if hasattr(data, "to_numpy") else data
        import numpy as np

        wanted = str(dtypes.pop()).removeprefix("torch.") if len(dtypes) == 1 else "float32"
        return np.array(array, wanted) if np.asarray(array).dtype.kind == "f" else np.array(array)

    def _like(self, found: Any, data: Any) -> Any:
        if not hasattr(data, "to_numpy") or found.ndim > 2:
            return found
        import pandas as pd

        return pd.DataFrame(found, index=data.index)
