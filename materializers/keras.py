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
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import keras

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .base import Spec
from .classes import find
from .files import FileReader, FileWriter
from .mlmodel import check_all, write_mlmodel
from .numpy_scalars import cell
from .tagged import decode, encode
from .zip_file import entry

__all__ = ["KerasMaterializer"]

_FILE = "model.keras"
_NO_TIME = "1980-01-01@00:00:00"
_KNOWN = {"metadata.json", "config.json", "model.weights.h5"}
_FUNCTIONS = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints")
_BACKENDS = ("keras", "tensorflow", "torch", "jax", "builtins")


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
        attributes = _attributes(value)
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
            "names": [layer.name for layer in _layers(value)],
            "attributes": attributes,
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
        for layer, layer_name in zip(_layers(model), spec.get("names", ()), strict="names" in spec):
            layer.name = layer_name
        for number, found in spec.get("attributes", []):
            _put_attributes(_layers(model)[number], found)
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


# ---- what the file does not hold


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers())


def _attributes(model: Any) -> list[list[Any]]:
    """The plain attributes that a model, and layers of the user's own classes, have and their configurations do not.

    Raises MaterializationError for a layer that its configuration does not make again.
    """
    found = []
    for number, layer in enumerate(_layers(model)):
        if getattr(layer, "lora_enabled", False):
            raise MaterializationError(
                f"its layer {layer.name!r} has LoRA weights, which Keras merges when it saves. "
                "Return model.get_weights()"
            )
        is_own = _package(layer) != "keras"
        if isinstance(layer, keras.Model) and not is_own:
            again = keras.Sequential() if layer is model else layer
        else:
            again = _made_again(layer)
        if layer is model or is_own:
            _check_others(layer, {} if is_own else vars(layer), vars(again))
            its = _plain(again)
            changed = {key: node for key, node in _plain(layer).items() if its.get(key, ...) != node}
            found += [[number, changed]] if changed else []
    return found


def _made_again(layer: Any) -> Any:
    """The layer of the same configuration, not built."""
    try:
        config = keras.saving.serialize_keras_object(layer)
        config.pop("build_config", None)
        _check_code(config)
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    except MaterializationError:
        raise
    except Exception as error:  # get_config and from_config are the user's own
        reason = " ".join(str(error).rpartition("Exception encountered:")[2].split())[:300]
        raise MaterializationError(
            f"its layer {layer.name!r} cannot be made again from its get_config(): {reason} Functions and classes are "
            "found if they are registered by @keras.saving.register_keras_serializable()"
        ) from error


def _check_others(model: Any, attributes: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, item in attributes.items():
        more = not key.startswith("_") and key not in known and _package(item) not in _BACKENDS
        if more and key not in _plain(model):
            raise MaterializationError(
                f"its attribute {key!r} is a {type_name(type(item))}, which no model file holds; return it beside the "
                "model, in a dict"
            )


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _plain(layer: Any) -> dict[str, Any]:
    """The public attributes that are data, as JSON."""
    found = {}
    for key, item in vars(layer).items():
        kind = next((kind for kind in (list, dict, set) if isinstance(item, kind)), None)
        plain = kind(item) if kind and _package(item) == "keras" else item  # Keras keeps track of what is in these
        if not key.startswith("_") and key != "name":
            with suppress(MaterializationError):
                found[key] = encode(plain, leaf=cell)
    return found


def _put_attributes(layer: Any, found: Mapping[str, Any]) -> None:
    has = _plain(layer)
    for key, node in found.items():
        if key.startswith("_"):
            raise MaterializationError(f"the stored model has an attribute {key!r}: refused")
        if has.get(key, ...) != node:
            setattr(layer, key, decode(node))


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
