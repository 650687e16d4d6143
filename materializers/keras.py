"""Keras 3 models as the ``.keras`` file that ``keras.saving.load_model`` opens: the same bytes for equal models.

Keras writes the time, and addresses of objects, into the file; here they are fixed numbers. Loading is in Keras's safe
mode: no code in the file is run. Classes and functions of others are taken only if they are registered by
``@keras.saving.register_keras_serializable()``; the module that registers one is imported for it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import keras

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .base import Spec
from .classes import find
from .files import FileReader, FileWriter
from .mlmodel import check_all, write_mlmodel
from .zip_file import entry

__all__ = ["KerasMaterializer"]

_FILE = "model.keras"
_NO_TIME = "1980-01-01@00:00:00"
_KNOWN = {"metadata.json", "config.json", "model.weights.h5"}
_FUNCTIONS = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints", "ops")


class KerasMaterializer:
    """``keras.Model``: sequential, functional, and sub-classes that are registered; with optimizer and its state."""

    name: ClassVar[str] = "keras"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The modules that register its classes. Raises MaterializationError, naming what is code (Lambda)."""
        if not isinstance(value, keras.Model):
            raise MaterializationError(
                f"it is a {type_name(type(value))}, not a model; return keras.Sequential([...]) of it"
            )
        _check_optimizer(value)
        with tempfile.TemporaryDirectory(dir=files.directory) as name:
            folder = Path(name, "model")
            try:
                value.save(folder, zipped=False)
            except Exception as error:  # get_config and save_own_variables are the user's own
                raise MaterializationError(f"Keras does not save it: {type(error).__name__}: {error}") from error
            config = json.loads((folder / "config.json").read_bytes())
            modules = _check(config)
            with files.open(_FILE) as stream:
                _pack(folder, config, stream)
                size = stream.tell()
        about = {"data": "model", "keras_version": keras.__version__, "keras_backend": keras.config.backend()}
        packages = ("keras", "numpy", keras.config.backend())
        write_mlmodel(files, "keras", about, data=None, size=size, packages=packages, predicts=True)
        return {
            "modules": modules,
            "backend": keras.config.backend(),
            "seeds": [_numbers(seed) for seed in _seeds(value)],
        }

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The model, on the backend that Keras uses here. Raises MaterializationError for anything that is not data."""
        check_all(files)
        path = files.path(_FILE)
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            _check_code(json.loads(archive.read("config.json")))
        for module in spec["modules"]:
            _import(module)
        model = keras.saving.load_model(path, safe_mode=True)
        for seed, state in zip(_seeds(model), spec["seeds"], strict=True):
            seed.assign(state)
        return model

    def describe(self, value: Any) -> dict[str, Any]:
        """Parameters and layers; loss, metrics and optimizer; dtype policy; the backend."""
        if not isinstance(value, keras.Model):
            return {}
        layers = Counter(type(layer).__name__ for layer in value.layers)
        about: dict[str, Any] = {
            "built": value.built,
            "layers": dict(layers.most_common()),
            "backend": keras.config.backend(),
        }
        about["dtype"] = value.dtype_policy.name
        if value.built:
            about["parameters"] = value.count_params()
            about["trainable_parameters"] = sum(_size(part) for part in value.trainable_variables)
        if getattr(value, "optimizer", None) is not None:
            about["optimizer"] = type(value.optimizer).__name__
            about["loss"] = value.loss if isinstance(value.loss, str) else getattr(value.loss, "name", str(value.loss))
            about["metrics"] = list(value.metrics_names)
        return about


def _size(variable: Any) -> int:
    total = 1
    for part in variable.shape:
        total *= part
    return total


def _seeds(model: Any) -> list[Any]:
    """The states of random generators (of Dropout, ...), which Keras makes anew when it loads a model."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _numbers(variable: Any) -> list[int]:
    return [int(number) for number in keras.ops.convert_to_numpy(variable)]


# ---- the file


def _pack(folder: Path, config: Any, stream: Any) -> None:
    """The archive that Keras makes of this folder, without times and addresses."""
    metadata = {**json.loads((folder / "metadata.json").read_bytes()), "date_saved": _NO_TIME}
    texts = {"metadata.json": json.dumps(metadata), "config.json": json.dumps(_renumbered(config, {}))}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as target:
        for name, text in texts.items():
            target.writestr(entry(name), text)
        for name in sorted(found - set(texts)):
            info = entry(name)
            info.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as content, target.open(info, "w") as out:
                shutil.copyfileobj(content, out, 1 << 20)


def _renumbered(node: Any, numbers: dict[int, int]) -> Any:
    """Objects that occur more than once are marked by their address: by their order instead.

    Not dtype policies, which are values: what is loaded has one for each layer, where the same model had one for all.
    """
    if isinstance(node, list):
        return [_renumbered(item, numbers) for item in node]
    if not isinstance(node, dict):
        return node
    if str(node.get("class_name")).endswith("DTypePolicy"):
        node = {key: item for key, item in node.items() if key != "shared_object_id"}
    return {
        key: numbers.setdefault(item, len(numbers) + 1) if key == "shared_object_id" else _renumbered(item, numbers)
        for key, item in node.items()
    }


def _check_members(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        inside = path.parts[:1] == ("assets",) and ".." not in path.parts and "\\" not in member.filename
        if not (member.filename in _KNOWN or inside) or member.file_size != member.compress_size:
            raise MaterializationError(f"the model file has a member {member.filename!r}, which Keras does not write")


# ---- what is in it


def _check_optimizer(model: Any) -> None:
    """That the optimizer's state is of what trains now: else Keras leaves it out when it loads, with a warning."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return
    trained = {id(variable) for variable in optimizer._trainable_variables}
    if trained != {id(variable) for variable in model.trainable_variables}:
        raise MaterializationError(
            "its optimizer was built for other variables than are trainable now, and would lose its state. Compile the "
            "model again after setting `trainable`, or return it without optimizer"
        )


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for item in node.values():
            yield from _nodes(item)
    elif isinstance(node, list):
        for item in node:
            yield from _nodes(item)


def _check_code(config: Any) -> None:
    for node in _nodes(config):
        if node["class_name"] in ("Lambda", "__lambda__"):
            place = node.get("config", {}).get("name") if isinstance(node.get("config"), dict) else None
            raise MaterializationError(
                f"its layer {place or node['class_name']!r} holds a lambda, which is code. Write a Layer with a call "
                "method, registered by @keras.saving.register_keras_serializable()"
            )


def _check(config: Any) -> list[str]:
    """Where the classes and functions of others are registered. Raises MaterializationError when one is not."""
    _check_code(config)
    found = set()
    for node in _nodes(config):
        module, function = node.get("module"), node["class_name"] == "function"
        if module and module.partition(".")[0] == "keras":
            continue
        name = node["config"] if function else node.get("registered_name") or node["class_name"]
        if function and any(hasattr(getattr(keras, part), str(node["config"])) for part in _FUNCTIONS):
            continue
        known = keras.saving.get_registered_object(name)
        if known is None and ("module" in node or function):
            raise MaterializationError(
                f"it holds {name!r}, which Keras finds again only if it is registered: put "
                "@keras.saving.register_keras_serializable() before it"
            )
        if known is not None:
            if find(known.__module__, known.__qualname__) is None:
                raise MaterializationError(
                    f"{type_name(known)} is made inside a function; move it to the top of its module"
                )
            found.add(known.__module__)
    return sorted(found)


def _import(module: str) -> None:
    import importlib

    try:
        importlib.import_module(module)
    except ImportError as error:
        raise MaterializationError(
            f"its classes are registered by {module!r}, which cannot be imported ({error})"
        ) from error
