"""Hugging Face's models, tokenizers, processors and configurations: folders that ``from_pretrained`` opens.

A model is ``config.json``, ``generation_config.json`` and ``model.safetensors``, and beside these what
``from_pretrained`` would lose: which weights train, what is in training mode, buffers that are not weights
(``state.json``, ``buffers.safetensors``). It is built again from its configuration alone, on no device, and given its
tensors; saving does that too, so that a model which its configuration does not describe (a replaced head, an adapter)
is refused.

Only classes of the library itself are made. Code that comes with a model (``trust_remote_code``, ``auto_map``, kernels
of the Hub) is never loaded, and nothing is fetched.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import transformers

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .base import Spec
from .classes import find, resolve
from .files import FileReader, FileWriter
from .mlflow_model import write_torch_mlmodel
from .mlmodel import check_all, read_all
from .tagged import decode, dumps, encode, loads

__all__ = ["TransformersMaterializer"]

_CONFIG, _GENERATION, _STATE = "config.json", "generation_config.json", "state.json"
_WEIGHTS, _BUFFERS = "model.safetensors", "buffers.safetensors"
_OF_THE_PLACE = {
    *("name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "is_local", "local_files_only"),
    *("transformers_version", "processor_class"),
}
_TOLD_OTHERWISE = {"added_tokens_decoder", "additional_special_tokens", "model_max_length", "tokenizer_object", "vocab"}
_NOT_COMPARED = {"training", "_is_hf_initialized", "name_or_path", "config", "generation_config"}
_SCALARS = (bool, int, float, str, type(None))


class TransformersMaterializer:
    """Models (``PreTrainedModel``), tokenizers fast and slow, processors, configurations."""

    name: ClassVar[str] = "transformers"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The name of the class. Raises MaterializationError for what ``from_pretrained`` would not give back."""
        reference = _reference(type(value))
        kind = _kind(type(value))
        _SAVE[kind](value, files)
        spec = {"kind": kind, "class": reference}
        if kind == "model":
            size = sum(part.numel() * part.element_size() for part in value.parameters())
            about = {"materializer": self.name, "version": self.version, "spec": spec}
            write_torch_mlmodel(files, about, size=size, packages=("transformers",))
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The object, from the verified files."""
        check_all(files)
        cls = _resolve(spec["class"])
        if _kind(cls) != spec["kind"]:
            raise MaterializationError(f"the stored value is no {spec['kind']}: {spec['class']!r}")
        return _LOAD[spec["kind"]](cls, files)

    def describe(self, value: Any) -> dict[str, Any]:
        """Type and numbers of a model, size of a vocabulary."""
        kind = _kind(type(value))
        if kind == "model":
            from .torch import describe_module

            return {"model_type": value.config.model_type, **describe_module(value)}
        if kind == "tokenizer":
            return {"vocabulary": len(value), "max_length": value.model_max_length, "fast": value.is_fast}
        return {"model_type": value.model_type} if kind == "config" else {}


# ---- classes


def _kind(cls: Any) -> str:
    kinds = {
        "PreTrainedModel": "model",
        "PreTrainedTokenizerBase": "tokenizer",
        "PreTrainedConfig": "config",
        "PretrainedConfig": "config",
        "GenerationConfig": "generation",
        "ProcessorMixin": "processor",
        "ImageProcessingMixin": "processor",
        "FeatureExtractionMixin": "processor",
    }
    names = (base.__qualname__ for base in cls.__mro__ if base.__module__.partition(".")[0] == "transformers")
    found = next((kinds[name] for name in names if name in kinds), None)
    if found is None:
        raise MaterializationError(f"{type_name(cls)} is no class of transformers that is known here")
    return found


def _reference(cls: type) -> str:
    if cls.__module__.partition(".")[0] != "transformers" or find(cls.__module__, cls.__qualname__) is not cls:
        raise MaterializationError(
            f"it is a {type_name(cls)}, which is no class of transformers. Return its state_dict() and its "
            "config, or derive it from torch.nn.Module around a model of the library"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def _resolve(reference: str) -> Any:
    if reference.partition(".")[0] != "transformers":
        raise MaterializationError(f"the stored class {reference!r} is not one of transformers: refused")
    return resolve(reference)


# ---- configurations


def _config_to(config: Any) -> dict[str, Any]:
    """A configuration as JSON. Raises MaterializationError when it would not be the same again."""
    written = {"model_type", "transformers_version"} - {key for key, item in vars(config).items() if item is not None}
    values = {key: item for key, item in config.to_dict().items() if key not in written}
    node: dict[str, Any] = {"class": _reference(type(config)), "values": encode(values)}
    if hasattr(config, "_name_or_path"):
        node["name"] = config._name_or_path
        node["attention"] = config._attn_implementation_internal
    again = _config_from(node)
    changed = sorted(key for key in config.to_dict() if config.to_dict()[key] != again.to_dict().get(key, ...))
    if changed:
        raise MaterializationError(f"its {type(config).__name__} would change at {', '.join(changed)}")
    return node


def _config_from(node: Mapping[str, Any]) -> Any:
    values = decode(node["values"])
    for key, value in _leaves({**values, "_attn_implementation": node.get("attention")}):
        if ("implementation" in key or "kernel" in key) and isinstance(value, str) and "/" in value:
            raise MaterializationError(
                f"its configuration names code of the Hub ({key} is {value!r}), which is not loaded"
            )
    cls = _resolve(node["class"])
    if _kind(cls) not in ("config", "generation"):
        raise MaterializationError(f"the stored class {node['class']!r} is no configuration: refused")
    config = cls.from_dict(values)
    if "name" in node:
        config._name_or_path = node["name"]
        config._attn_implementation_internal = node["attention"]
    return config


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, item in node.items():
            yield from _leaves(item, str(name))
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _leaves(item, key)
    else:
        yield key, node


def _save_config(config: Any, files: FileWriter) -> None:
    node = _config_to(config)
    files.write(_CONFIG if _kind(type(config)) == "config" else _GENERATION, _text(config.to_dict()))
    files.write(_STATE, dumps(node))


def _load_config(cls: Any, files: FileReader) -> Any:
    return _config_from(loads(read_all(files)[_STATE]))


def _text(values: Any) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True, default=str) + "\n").encode()


# ---- models


def _save_model(model: Any, files: FileWriter) -> None:
    from .torch_tensors import Tensors, dtype_node

    state: dict[str, Any] = {"config": _config_to(model.config), "generation": None}
    if getattr(model, "generation_config", None) is not None:
        state["generation"] = _config_to(model.generation_config)
    changed = _difference(model, _skeleton(type(model), state))
    if changed:
        raise MaterializationError(
            f"its configuration does not describe it: {changed}. Return its state_dict(), or merge what was added to it"
        )
    saved = set(model.state_dict())
    groups = {
        "weights": Tensors(lambda parts, name: encode(parts)),
        "buffers": Tensors(lambda parts, name: encode(parts)),
    }
    for name, tensor in _tensors(model):
        group = "weights" if name in saved else "buffers"
        state.setdefault(f"{group} by name", {})[name] = groups[group].add(tensor, name)
    state["training"] = model.training
    state["unlike"] = [name for name, part in model.named_modules() if part.training != model.training]
    state["weights"] = groups["weights"].write(files, _WEIGHTS)
    state["buffers"] = groups["buffers"].write(files, _BUFFERS) if len(groups["buffers"]) else []
    files.write(_STATE, dumps(state))
    written = {**model.config.to_dict(), "architectures": [type(model).__name__], "dtype": dtype_node(model.dtype)}
    files.write(_CONFIG, _text(written))
    if state["generation"]:
        files.write(_GENERATION, _text(model.generation_config.to_dict()))


def _load_model(cls: Any, files: FileReader) -> Any:
    from .torch_tensors import TensorFile

    state = loads(files.read(_STATE))
    for name in (_CONFIG, *([_GENERATION] if state["generation"] else [])):
        files.read(name)  # a damaged artifact is not loaded
    model = _skeleton(cls, state)
    for group, name in (("weights", _WEIGHTS), ("buffers", _BUFFERS)):
        tensors = TensorFile(files, state[group], decode, name) if state[group] else None
        for place, number in state.get(f"{group} by name", {}).items():
            owner, _, leaf = place.rpartition(".")
            part = model.get_submodule(owner)
            kept = part._parameters if leaf in part._parameters else part._buffers
            if leaf not in kept or tensors is None:
                raise MaterializationError(f"{cls.__name__} has no tensor {place!r} in this version of transformers")
            kept[leaf] = tensors.get(number)
    missing = [name for name, tensor in _tensors(model) if tensor.device.type == "meta"]
    if missing:
        raise MaterializationError(f"{cls.__name__} wants tensors that are not stored: {', '.join(missing[:5])}")
    unlike = set(state["unlike"])
    for name, part in model.named_modules():
        part.training = state["training"] != (name in unlike)
    return model


def _skeleton(cls: Any, state: Mapping[str, Any]) -> Any:
    """The model without data, as its constructor makes it."""
    import torch

    with torch.device("meta"):
        model = cls(_config_from(state["config"]))
    if state["generation"] or hasattr(model, "generation_config"):
        model.generation_config = _config_from(state["generation"]) if state["generation"] else None
    return model


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _difference(model: Any, again: Any) -> str | None:
    """Where a model and its skeleton differ: layers, names and shapes of tensors, hooks, plain attributes."""
    parts, others = (dict(each.named_modules(remove_duplicate=False)) for each in (model, again))
    for name in [*parts, *others]:
        if name not in parts or name not in others or type(parts[name]) is not type(others[name]):
            kinds = (type_name(type(each.get(name))) for each in (parts, others))
            return f"{name or 'the model'} is a {next(kinds)}, which would be a {next(kinds)}"
        found = _attributes_differ(parts[name], others[name])
        if found:
            return f"{name or 'the model'} {found}"
    shapes, wanted = ({name: tuple(tensor.shape) for name, tensor in _tensors(each)} for each in (model, again))
    changed = sorted(name for name in {*shapes, *wanted} if shapes.get(name) != wanted.get(name))
    return (
        f"the shape of {changed[0]}, {shapes.get(changed[0])}, would be {wanted.get(changed[0])}" if changed else None
    )


def _attributes_differ(part: Any, again: Any) -> str | None:
    mine, its = vars(part), vars(again)
    for key in sorted({*mine, *its} - _NOT_COMPARED):
        if key.endswith("_hooks") and mine.get(key):
            return f"has hooks ({key}), which are code; remove them"
        one, other = mine.get(key, ...), its.get(key, ...)
        if type(one) is not type(other) or (isinstance(one, _SCALARS) and one != other and one == one):
            return f"has the attribute {key} {one!r}, which would be {'missing' if other is ... else repr(other)}"
    return None


# ---- tokenizers and processors


def _save_pretrained(value: Any, files: FileWriter) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        value.save_pretrained(folder)
        again = _from_folder(type(value), folder)
        mine, its = _facts(value), _facts(again)
        changed = sorted(key for key in mine if mine[key] != its.get(key, ...))
        if changed:
            raise MaterializationError(f"save_pretrained would change it at {', '.join(changed)}")
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            files.write(f"pretrained/{file.relative_to(folder).as_posix()}", file.read_bytes())
    files.write(_STATE, dumps(_origin(value)))


def _load_pretrained(cls: Any, files: FileReader) -> Any:
    state = loads(files.read(_STATE))
    value = _from_folder(cls, files.path("pretrained"))
    _put_origin(value, state)
    return value


def _origin(value: Any) -> dict[str, Any]:
    """Where a tokenizer is from and which arguments it was given, which ``from_pretrained`` replaces by its own."""
    state: dict[str, Any] = {"parts": {name: _origin(part) for name, part in _parts(value).items()}}
    if hasattr(value, "init_kwargs"):
        state |= {"name": value.name_or_path, "init": sorted(value.init_kwargs)}
    return state


def _put_origin(value: Any, state: Mapping[str, Any]) -> None:
    for name, part in state["parts"].items():
        _put_origin(getattr(value, name), part)
    if "init" in state:
        value.name_or_path = state["name"]
        for key in set(value.init_kwargs) - set(state["init"]):
            del value.init_kwargs[key]


def _parts(value: Any) -> dict[str, Any]:
    """The tokenizer and the other processors in a processor."""
    if not isinstance(value, transformers.ProcessorMixin):
        return {}
    return {name: getattr(value, name) for name in value.get_attributes()}


def _from_folder(cls: Any, folder: Path) -> Any:
    return cls.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _facts(value: Any) -> dict[str, Any]:
    """All that is known of a tokenizer or processor, but for where it is."""
    if not hasattr(value, "get_vocab"):
        parts = _parts(value)
        inner = {f"{name}.{key}": item for name, part in parts.items() for key, item in _facts(part).items()}
        own = {key: item for key, item in _without_places(value.to_dict()).items() if key not in parts}
        return {**own, **inner}
    arguments = _without_places(value.init_kwargs)
    facts = {
        "vocabulary": value.get_vocab(),
        "added tokens": {number: repr(token) for number, token in value.added_tokens_decoder.items()},
        "special tokens": value.special_tokens_map,
        "chat_template": value.chat_template,
        **{name: getattr(value, name) for name in ("model_max_length", "padding_side", "truncation_side")},
        **{f"init {key}": str(item) for key, item in arguments.items() if key not in _TOLD_OTHERWISE},
    }
    if value.is_fast:
        facts["tokenizer"] = json.loads(value.backend_tokenizer.to_str())
    return facts


def _without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in values.items() if key not in _OF_THE_PLACE}


_SAVE: dict[str, Callable[[Any, FileWriter], None]] = {
    "model": _save_model,
    "tokenizer": _save_pretrained,
    "processor": _save_pretrained,
    "config": _save_config,
    "generation": _save_config,
}
_LOAD: dict[str, Callable[[Any, FileReader], Any]] = {
    "model": _load_model,
    "tokenizer": _load_pretrained,
    "processor": _load_pretrained,
    "config": _load_config,
    "generation": _load_config,
}
