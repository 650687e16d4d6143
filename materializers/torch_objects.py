"""Modules, optimizers and schedulers of PyTorch as data: the class by name, the attributes, references between them.

What pickle would do, without what pickle can do: an object is made of its class without calling it, and given its
attributes, which are plain values, tensors, and other such objects. A class must be importable, and a module of
PyTorch's own layers or of a package of the user's; a function is one of ``torch.nn.functional``. Anything else (hooks,
lambdas, compiled and traced modules) is refused. Gradients are no part of a module, as in ``torch.save``.
"""

from __future__ import annotations

import functools
import types
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler
from torch.utils import data

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .classes import find, resolve
from .files import FileReader, FileWriter
from .numpy_scalars import cell
from .tagged import TAG, Decoder, Encoder, dumps, is_plain, loads, tag
from .torch_tensors import TensorFile, Tensors, dtype_named, dtype_node

__all__ = ["ObjectFile", "Objects"]

_FILE = "structure.json"
_LAYERS = ("torch.nn.modules.", "torch.optim.swa_utils")
_OWN_STATE = ("__new__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__setattr__", "__slots__")
_MATH = {"abs", "cos", "erf", "exp", "log", "neg", "relu", "rsqrt", "sigmoid", "sin", "sqrt", "square", "tanh"}
_OPTIMIZER_HOOKS = "_optimizer_"
_SCHEDULERS = (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau)
_DATASETS = (data.TensorDataset, data.Subset, data.ConcatDataset, data.StackDataset)
_OWN = (torch.optim.Optimizer, *_SCHEDULERS, *_DATASETS)
_WAYS_OUT = (
    "Return its state_dict(), or export it (torch.export.save, ONNX) and return the file's Path; "
    "of a wrapper (compiled, parallel) return what it wraps"
)
_INSTEAD = {
    "ExportedProgram": "Write it by torch.export.save and return the file's Path",
    "ScriptFunction": "Return the module that it is of, or the Path of a torch.export file",
    "DataLoader": "Return its .dataset, and its other arguments in a dict",
    "GradScaler": "Return its state_dict()",
    "Generator": "Return its get_state()",
}
Node = dict[str, Any]


class Objects:
    """Takes objects of PyTorch in and writes them: ``structure.json`` and ``tensors.safetensors``."""

    def __init__(self) -> None:
        self._tensors = Tensors(self._attributes)
        self._places: dict[int, int] = {}
        self._nodes: list[Node] = []
        self._added: list[Any] = []
        self._keep: list[Any] = []  # so that no id is used twice

    def add(self, value: Any, place: str = "") -> int:
        """The number of a value. After a MaterializationError everything is as before."""
        objects, tensors = len(self._nodes), len(self._tensors)
        try:
            self._added.append(self._encode(value, ".".join(map(str, getattr(place, "path", ())))))
            return len(self._added) - 1
        except MaterializationError:
            self._places = {key: number for key, number in self._places.items() if number < objects}
            del self._nodes[objects:], self._keep[objects:]
            self._tensors.forget(tensors)
            raise

    def write(self, files: FileWriter) -> None:
        """Write the two files, or none when nothing was taken in."""
        if self._added:
            tensors = self._tensors.write(files)
            files.write(_FILE, dumps({"objects": self._nodes, "tensors": tensors, "values": self._added}))

    def _encode(self, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            return tag("tensor", self._tensors.add(value, name))
        if isinstance(value, torch.Size):
            return tag("size", list(value))
        if isinstance(value, torch.dtype):
            return tag("dtype", dtype_node(value))
        if isinstance(value, torch.device):
            return tag("device", str(value))
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            return tag("function", _function_name(value))
        if isinstance(value, type):
            return tag("module class", _module_class(value))
        if type(value) is functools.partial and not vars(value):
            parts = {"function": value.func, "arguments": value.args, "keywords": value.keywords}
            return tag("partial", self._attributes(parts, name))
        if isinstance(value, types.MethodType) and isinstance(value.__self__, torch.nn.Module):
            return tag("method", [self._encode(value.__self__, name), _method_name(value)])
        for base, encode in self._kinds().items():
            if isinstance(value, base):
                return tag("object", self._add(value, name, encode))
        kind = type_name(type(value))
        if kind.startswith("transformers.") and kind.endswith(".GenerationConfig"):
            from .transformers import config_to

            return tag("generation", config_to(value))
        if kind != "numpy.ndarray":
            raise MaterializationError(
                f"it is a {kind}, which is no data. {_INSTEAD.get(type(value).__name__, _WAYS_OUT)}"
            )
        return cell(value, name)

    def _kinds(self) -> dict[Any, Callable[[Any, str], Node]]:
        kinds: dict[Any, Any] = {torch.nn.Module: self._module, torch.optim.Optimizer: self._optimizer}
        return {**kinds, (*_SCHEDULERS, *_DATASETS): self._own}

    def _add(self, value: Any, name: str, encode: Callable[[Any, str], Node]) -> int:
        """The number of an object, which may contain itself."""
        if id(value) not in self._places:
            place = self._places[id(value)] = len(self._nodes)
            self._nodes.append({})
            self._keep.append(value)
            self._nodes[place].update(encode(value, name))
        return self._places[id(value)]

    def _attributes(self, attributes: Mapping[str, Any], name: str) -> Node:
        """Any attributes, each with its place in messages."""
        found = {}
        for key, value in attributes.items():
            inner = f"{name}.{key}" if name else key

            def leaf(item: Any, where: Any, inner: str = inner) -> Any:
                return self._encode(item, ".".join([inner, *map(str, where.path)]))

            try:
                found[key] = value if is_plain(value) else Encoder(leaf).encode(value)
            except MaterializationError as error:
                if hasattr(error, "inside"):
                    raise
                problem = MaterializationError(f"{f'its part {name!r}, in' if name else 'in'} {key!r}: {error}")
                problem.inside = True  # type: ignore[attr-defined]  # the innermost place is enough
                raise problem from error
        return found

    # ---- modules

    def _module(self, module: Any, name: str) -> Node:
        which = f"its module {name!r}" if name else "it"
        problem = _module_problem(type(module))
        if problem:
            raise MaterializationError(f"{which} is a {type_name(type(module))}, which {problem}. {_WAYS_OUT}")
        state = module.__getstate__()
        fresh = torch.nn.Module().__getstate__()
        hooks = [key for key, value in state.items() if key.endswith("_hooks") and value]
        if hooks:
            remove = "remove them (those of weight_norm and its like by torch.nn.utils.remove_weight_norm, ...)"
            raise MaterializationError(f"{which} has hooks ({', '.join(hooks)}), which are code; {remove}")
        groups = ("_parameters", "_buffers", "_modules")
        changed = {
            key: value
            for key, value in state.items()
            if key not in fresh or (key not in groups and (type(value), value) != (type(fresh[key]), fresh[key]))
        }
        node: Node = {"class": _class_name(type(module))}
        for key in groups:  # by hand and first, so that tensors are named as in the state_dict
            if state[key]:
                prefix = f"{name}." if name else ""
                parts = state[key].items()
                node[key] = {part: None if it is None else self._encode(it, prefix + part) for part, it in parts}
        node["state"] = self._attributes(changed, name)
        return node

    # ---- optimizers and schedulers

    def _optimizer(self, optimizer: Any, name: str) -> Node:
        state = dict(vars(optimizer))
        hooks = [key for key, value in state.items() if key.startswith(_OPTIMIZER_HOOKS) and value]
        if hooks:
            raise MaterializationError(f"the optimizer has hooks ({', '.join(hooks)}), which are code; remove them")
        reference = _own_class(type(optimizer))
        attached = hasattr(state.pop("step", None), "_wrapped_by_lr_sched")
        moments = state.pop("state")
        kept = {key: value for key, value in state.items() if not key.startswith(_OPTIMIZER_HOOKS)}
        node: Node = {"class": reference, "state": self._attributes(kept, name)}
        node["moments"] = [
            [self._encode(key, f"{name}.{number}"), self._attributes(value, f"{name}.{number}")]
            for number, (key, value) in enumerate(moments.items())
        ]
        if attached:
            node["scheduled"] = True
        return node

    def _own(self, value: Any, name: str) -> Node:
        return {"class": _own_class(type(value)), "state": self._attributes(vars(value), name)}


# ---- names of classes and functions


def _class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _own_class(cls: type) -> str:
    if cls.__module__.partition(".")[0] != "torch" or find(cls.__module__, cls.__qualname__) is not cls:
        raise MaterializationError(f"it is a {type_name(cls)}, which is not one of PyTorch's own. {_WAYS_OUT}")
    return _class_name(cls)


def _module_class(cls: type) -> str:
    """The name of a class of modules that can be made again by attributes alone."""
    problem = _module_problem(cls)
    if problem:
        raise MaterializationError(f"{type_name(cls)} {problem}. {_WAYS_OUT}")
    return _class_name(cls)


def _module_problem(cls: type) -> str | None:
    if not issubclass(cls, torch.nn.Module):
        return "is no class of modules"
    if cls.__module__ == "torch.nn.utils.parametrize":
        return "is parametrized (weight_norm, ...): first torch.nn.utils.parametrize.remove_parametrizations(...)"
    if "<locals>" in cls.__qualname__:
        return "is a class made inside a function, which cannot be found again; move it to the top of its module"
    if find(cls.__module__, cls.__qualname__) is not cls:
        return f"is a class that {cls.__module__} does not have"
    for base in cls.__mro__:
        if base is torch.nn.modules.lazy.LazyModuleMixin:
            return "has no shapes yet: let a batch run through it first"
        if base in (object, torch.nn.Module) or base.__module__.startswith(_LAYERS):
            continue
        if base.__module__.partition(".")[0] == "torch":
            return f"is of {base.__module__}, which is not a layer"
        own = [name for name in _OWN_STATE if vars(base).get(name)]
        if own and base.__module__ not in ("typing", "abc"):
            return f"makes or keeps its objects in a way of its own ({', '.join(own)})"
    return None


def _function_name(value: Any) -> str:
    name, long_name = value.__name__, value.__qualname__
    for reference in (f"torch.nn.functional:{name}", f"torch:{name}", f"{value.__module__}:{long_name}"):
        if _function(reference) is value:
            return reference
    raise MaterializationError(
        f"it is the function {long_name!r}, which is code; those of torch.nn.functional are known. Make it a method of "
        f"the module. {_WAYS_OUT}"
    )


def _method_name(method: Any) -> str:
    name: str = method.__name__
    if _method(method.__self__, name) != method:
        raise MaterializationError(f"it is the method {name!r}, which its class does not have. {_WAYS_OUT}")
    return name


def _method(module: Any, name: str) -> Any:
    """The method of a module, by its class alone; ``None`` if it has no such one."""
    found = getattr(type(module), name, None)
    return types.MethodType(found, module) if isinstance(found, types.FunctionType) else None


def _function(reference: str) -> Any:
    """The function of this name if it is one of PyTorch's on tensors, else None."""
    module, _, name = reference.partition(":")
    if module == "torch":
        return getattr(torch, name) if name in _MATH else None
    found = getattr(torch.nn.functional, name, None) if module == "torch.nn.functional" else None
    if module.startswith("torch.optim."):  # a rule of a schedule
        found = find(module, name)
        own = isinstance(found, types.FunctionType) and (found.__module__, found.__qualname__) == (module, name)
        return found if own and "." in name else None
    if name.startswith("_"):
        return None
    own = isinstance(found, types.FunctionType) and found.__module__ == "torch.nn.functional"
    return found if own or isinstance(found, types.BuiltinFunctionType) else None


# ---- and back


class ObjectFile:
    """The objects of the files that :class:`Objects` wrote. Objects that were one are one again."""

    def __init__(self, files: FileReader) -> None:
        content = loads(files.read(_FILE))
        self._nodes = content["objects"]
        self._decoder = Decoder(self._leaf)
        self._tensors = TensorFile(files, content["tensors"], self._decoder.decode)
        self._values = content["values"]
        self._made = [object.__new__(_class_of(node)) for node in self._nodes]
        for made, node in zip(self._made, self._nodes, strict=True):
            if isinstance(made, torch.nn.Module):
                self._fill_module(made, node)
            elif isinstance(made, torch.optim.Optimizer):
                self._fill_optimizer(made, node)
            else:
                vars(made).update(self._state(node))

    def get(self, number: int) -> Any:
        """The value that :meth:`Objects.add` returned this number for."""
        return self._decoder.decode(self._values[number])

    def _leaf(self, node: Node) -> Any:
        kind, content = node[TAG], node["v"]
        if kind == "tensor":
            return self._tensors.get(content)
        if kind == "object":
            return self._made[content]
        if kind == "function":
            found = _function(content)
        elif kind == "method":
            found = _method(self._decoder.decode(content[0]), content[1])
        elif kind == "partial":
            parts = {key: self._decoder.decode(item) for key, item in content.items()}
            found = functools.partial(parts["function"], *parts["arguments"], **parts["keywords"])
        elif kind == "module class":
            found = _checked(resolve(content))
        else:
            makers: dict[str, Callable[[Any], Any]] = {
                "size": torch.Size,
                "dtype": dtype_named,
                "device": torch.device,
                "generation": _generation,
            }
            found = makers[kind](content) if kind in makers else None
        if found is None:
            raise MaterializationError(f"the stored object is the {kind} {content!r}, which is not known here")
        return found

    def _state(self, node: Node) -> Node:
        return {key: self._decoder.decode(item) for key, item in node["state"].items()}

    def _fill_module(self, module: Any, node: Node) -> None:
        state = torch.nn.Module().__getstate__() | self._state(node)
        for key in ("_parameters", "_buffers", "_modules"):
            state[key] |= {part: self._decoder.decode(item) for part, item in node.get(key, {}).items()}
        module.__setstate__(state)

    def _fill_optimizer(self, optimizer: Any, node: Node) -> None:
        moments: Any = defaultdict(dict)
        for key, state in node["moments"]:
            moments[self._decoder.decode(key)] = {name: self._decoder.decode(item) for name, item in state.items()}
        optimizer.__setstate__({**self._state(node), "state": moments})
        optimizer.defaults = self._state(node)["defaults"]  # __setstate__ has added to them
        if node.get("scheduled"):
            _Attached(optimizer)


class _Attached(lr_scheduler.LRScheduler):  # type: ignore[misc]  # its library may be missing
    """Only what the constructor of a scheduler does to its optimizer, by which it sees whether that has stepped."""

    def _initial_step(self) -> None:
        pass


def _generation(node: Node) -> Any:
    from .transformers import config_from

    return config_from(node)


def _class_of(node: Node) -> Any:
    cls = resolve(node["class"])
    if issubclass(cls, _OWN):
        _own_class(cls)
        return cls
    return _checked(cls)


def _checked(cls: type) -> type:
    _module_class(cls)
    return cls
