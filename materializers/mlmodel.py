"""What the materializers of models share: the files by which MLflow knows a folder as a model, and the model's card.

MLflow's files are written without importing MLflow, and without clocks.

With them ``mlflow.<flavor>.load_model(folder)`` and ``mlflow.pyfunc.load_model(folder)`` load an artifact where it
lies. The format is that of MLflow's own ``save_model`` (MLmodel, requirements.txt, python_env.yaml), as of MLflow 3.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .files import FileReader, FileWriter

__all__ = ["by_feature", "check_all", "read_all", "write_mlmodel"]

_SHOWN_FEATURES = 1000


def write_mlmodel(
    files: FileWriter,
    flavor: str,
    about: Mapping[str, Any],
    *,
    data: str | None,
    size: int,
    packages: Iterable[str],
    predicts: bool,
    loader: str = "",
) -> None:
    """Write the files for a model whose data is the file ``data`` of ``size`` bytes, with the flavor's own fields.

    ``packages`` are distributions that loading needs, pinned as installed. A model that ``predicts`` is a
    ``python_function`` too, which the module ``loader`` loads (else the flavor's own), from ``data`` or the folder.
    """
    import yaml

    flavors: dict[str, Any] = {flavor: dict(about)}
    if predicts:
        place = {"model_path": data, "predict_fn": "predict"} if flavor == "sklearn" else {"data": data}
        if data is None:
            place = {}
        flavors["python_function"] = {
            "env": {"virtualenv": "python_env.yaml"},
            "loader_module": loader or f"mlflow.{flavor}",
            "python_version": platform.python_version(),
            **place,
        }
    found = {name: _installed(name) for name in ("mlflow", *packages)}
    pinned = [f"{name}=={number}" for name, number in found.items() if number]
    document = {"flavors": flavors, "mlflow_version": found["mlflow"], "model_size_bytes": size}
    environment = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    files.write("MLmodel", yaml.safe_dump(document).encode())
    files.write("requirements.txt", "".join(f"{line}\n" for line in pinned).encode())
    files.write("python_env.yaml", yaml.safe_dump(environment).encode())


@cache  # a distribution with a long description takes ten milliseconds
def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def read_all(files: FileReader) -> dict[str, memoryview]:
    """The verified bytes of every file, MLflow's too: a damaged artifact is not loaded."""
    return {name: files.read(name) for name in files.names()}


def check_all(files: FileReader) -> None:
    """That MLflow's files, which nothing else reads, are what was saved."""
    for name in {"MLmodel", "requirements.txt", "python_env.yaml"} & set(files.names()):
        files.read(name)


def by_feature(importances: Iterable[float] | None, names: Iterable[str] | None) -> dict[str, Any]:
    """``{"feature_importances": ...}`` by name, or as a list without names; ``{}`` of a very wide model, or none."""
    if importances is None:
        return {}
    numbers = [float(number) for number in importances]
    if len(numbers) > _SHOWN_FEATURES:
        return {}
    return {"feature_importances": numbers if names is None else dict(zip(names, numbers, strict=True))}
