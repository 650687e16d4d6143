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

__all__ = ["TransformersMaterializer", "config_from", "config_to"]

_CONFIG, _GENERATION, _STATE = "config.json", "generation_config.json", "state.json"
_WEIGHTS, _BUFFERS = "model.safetensors", "buffers.safetensors"
_OF_THE_PLACE = {
    *("name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "is_local", "local_files_only"),
    *("transformers_version", "processor_class"),
}
_TOLD_OTHERWISE = {"added_tokens_decoder", "additional_special_tokens", "model_max_length", "tokenizer_object", "vocab"}
_NOT_COMPARED = {"training", "name_or_path", "config", "generation_config", "_weight_conversions"}
_NO_SCALARS = {"_parameters", "_buffers", "_modules"}
_INSTEAD = {
    "Pipeline": 'its parts: {"model": pipeline.model, "tokenizer": pipeline.tokenizer}',
    "BatchEncoding": "its .data, a dict",
    "ModelOutput": "dict(...) of it, or the tensors",
}
_SCALARS = (bool, int, float, str, type(None))


class TransformersMaterializer:
    """Models (``PreTrainedModel``), tokenizers fast and slow, processors, configurations."""

    name: ClassVar[str] = "transformers"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The name of the class. Raises MaterializationError for what ``from_pretrained`` would not give back."""
        for base, instead in _INSTEAD.items():
            if any(cls.__name__ == base for cls in type(value).__mro__):
                raise MaterializationError(f"it is a {type_name(type(value))}. Return {instead}")
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


def config_to(config: Any) -> dict[str, Any]:
    """A configuration as JSON. Raises MaterializationError when it would not be the same again."""
    own, text = vars(config), config.to_dict()
    written = {"model_type", "transformers_version"} - {key for key, item in own.items() if item is not None}
    tuples = {key: item for key, item in own.items() if type(item) is tuple}  # to_dict makes lists of them
    values = {key: tuples.get(key, item) for key, item in text.items() if key not in written}
    node: dict[str, Any] = {"class": _reference(type(config)), "values": encode(values)}
    if hasattr(config, "_name_or_path"):
        node["name"] = config._name_or_path
        node["attention"] = config._attn_implementation_internal
    if isinstance(own.get("dtype"), str):  # as save_pretrained leaves it; from_dict makes a dtype of it
        node["dtype"] = own["dtype"]
    again = config_from(node)
    kept = again.to_dict()
    changed = sorted(key for key, item in text.items() if item != kept.get(key, ...))
    changed += sorted(key for key in tuples if type(vars(again).get(key)) is not tuple)
    if changed:
        raise MaterializationError(f"its {type(config).__name__} would change at {', '.join(changed)}")
    return node


def config_from(node: Mapping[str, Any]) -> Any:
    """The configuration of :func:`config_to`. Raises MaterializationError for one that names code of the Hub."""
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
    if "dtype" in node:
        vars(config)["dtype"] = str(node["dtype"])
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
    node = config_to(config)
    files.write(_CONFIG if _kind(type(config)) == "config" else _GENERATION, _text(config.to_dict()))
    files.write(_STATE, dumps(node))


def _load_config(cls: Any, files: FileReader) -> Any:
    return config_from(loads(read_all(files)[_STATE]))


def _text(values: Any) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True, default=str) + "\n").encode()


# ---- models


def _save_model(model: Any, files: FileWriter) -> None:
    from .torch_tensors import Tensors, dtype_node

    state: dict[str, Any] = {"config": config_to(model.config), "generation": None}
    if getattr(model, "generation_config", None) is not None:
        state["generation"] = config_to(model.generation_config)
    state["attributes"] = _changed(model, _skeleton(type(model), state))
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
    for name, attributes in state.get("attributes", {}).items():
        _put_attributes(model.get_submodule(name), decode(attributes))
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
        model = cls(config_from(state["config"]))
    if state["generation"] or hasattr(model, "generation_config"):
        model.generation_config = config_from(state["generation"]) if state["generation"] else None
    return model


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _changed(model: Any, again: Any) -> dict[str, Any]:
    """The plain attributes, by layer, that a model has otherwise than its skeleton: ``from_pretrained`` sets some, too.

    Raises MaterializationError where they differ in more: layers, shapes of tensors, hooks, other objects.
    """
    found = {}
    parts, others = (dict(each.named_modules(remove_duplicate=False)) for each in (model, again))
    for name in [*parts, *others]:
        part, other = parts.get(name), others.get(name)
        if part is None or other is None or not _of_one_class(part, other):
            kinds = [type_name(type(each)) for each in (part, other)]
            raise _undescribed(f"{name or 'the model'} is a {kinds[0]}, which would be a {kinds[1]}")
        if name not in found and (changed := _attributes_changed(part, other, name or "the model")):
            found[name] = encode(changed)
    shapes, wanted = ({name: tuple(tensor.shape) for name, tensor in _tensors(each)} for each in (model, again))
    for name in sorted(name for name in {*shapes, *wanted} if shapes.get(name) != wanted.get(name)):
        raise _undescribed(f"the shape of {name}, {shapes.get(name)}, would be {wanted.get(name)}")
    return found


def _undescribed(what: str) -> MaterializationError:
    return MaterializationError(
        f"its configuration does not describe it: {what}. Return its state_dict(), or merge what was added to it"
    )


def _of_one_class(one: Any, other: Any) -> bool:
    """Whether two layers are of one class. Each that is parametrized (weight_norm) has a class of its own."""
    kinds = (type(one), type(other))
    made = all(kind.__module__ == "torch.nn.utils.parametrize" and hasattr(one, "parametrizations") for kind in kinds)
    return kinds[0] is kinds[1] or (made and kinds[0].__bases__ == kinds[1].__bases__)


def _attributes_changed(part: Any, again: Any, place: str) -> dict[str, Any]:
    mine, its = vars(part), vars(again)
    changed = {}
    for key in sorted({*mine, *its} - _NOT_COMPARED):
        if key.endswith("_hooks") and len(mine.get(key) or ()) != len(its.get(key) or ()):
            raise _undescribed(f"{place} has hooks ({key}), which are code; remove them")
        one, other = mine.get(key, ...), its.get(key, ...)
        if isinstance(one, _SCALARS) and type(one) is type(other) and (one == other or one != one):
            continue
        if isinstance(one, _SCALARS) and key not in _NO_SCALARS:
            changed[key] = one
        elif type(one) is not type(other):
            kinds = ["missing" if each is ... else f"a {type_name(type(each))}" for each in (one, other)]
            raise _undescribed(f"the attribute {key} of {place} is {kinds[0]}, which would be {kinds[1]}")
    return changed


def _put_attributes(part: Any, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        if not isinstance(value, _SCALARS) or key in _NO_SCALARS or (key == "_use_kernels" and value):
            raise MaterializationError(f"the stored model has the attribute {key} {value!r}: refused")
        vars(part)[key] = value


# ---- tokenizers and processors


def _save_pretrained(value: Any, files: FileWriter) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        value.save_pretrained(folder)
        again, origin = _from_folder(type(value), folder), _origin(value)
        _put_origin(again, origin)
        mine, its = _facts(value), _facts(again)
        changed = sorted(key for key in mine if mine[key] != its.get(key, ...))
        if changed:
            raise MaterializationError(f"save_pretrained would change it at {', '.join(changed)}")
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            files.write(f"pretrained/{file.relative_to(folder).as_posix()}", file.read_bytes())
    files.write(_STATE, dumps(origin))


def _load_pretrained(cls: Any, files: FileReader) -> Any:
    state = loads(files.read(_STATE))
    value = _from_folder(cls, files.path("pretrained"))
    _put_origin(value, state)
    return value


def _origin(value: Any) -> dict[str, Any]:
    """Where a tokenizer is from, which arguments it was given, and its plain attributes: others after loading."""
    state: dict[str, Any] = {"parts": {name: _origin(part) for name, part in _parts(value).items()}}
    if hasattr(value, "init_kwargs"):
        state |= {"name": value.name_or_path, "init": sorted(value.init_kwargs)}
        state |= {"given": encode(_scalars(value.init_kwargs)), "attributes": encode(_scalars(vars(value)))}
    return state


def _put_origin(value: Any, state: Mapping[str, Any]) -> None:
    for name, part in state["parts"].items():
        _put_origin(getattr(value, name), part)
    if "init" in state:
        value.name_or_path = state["name"]
        for key in set(value.init_kwargs) - set(state["init"]):
            del value.init_kwargs[key]
        value.init_kwargs |= _scalars(decode(state.get("given", {})))
        vars(value).update(_scalars(decode(state.get("attributes", {}))))


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


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in sorted(_without_places(values).items()) if isinstance(item, _SCALARS)}


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
