"""PyTorch's tensors, parameters, modules, optimizers and schedulers, without pickle: exact, and readable by others.

Two files: ``tensors.safetensors``, whose names are those of the ``state_dict``, and ``structure.json``, which says what
they are parts of; see ``torch_objects`` for what can be said. All objects in one dict or list are saved together, so
that an optimizer is still one of its model's parameters, and tied weights are still tied. Everything comes back on the
CPU, wherever it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from .base import Spec
from .files import FileReader, FileWriter
from .mlflow_model import write_torch_mlmodel
from .mlmodel import check_all
from .torch_objects import ObjectFile, Objects

__all__ = ["TorchMaterializer"]


class TorchMaterializer:
    """``Tensor``, ``Parameter``, ``Module``, ``Optimizer``, ``LRScheduler``, and the dtypes and sizes of them."""

    name: ClassVar[str] = "torch"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The two files. Raises MaterializationError, naming the part, for code: hooks, lambdas, wrappers."""
        objects = self.gather()
        objects.add(value)
        objects.write(files)
        if isinstance(value, torch.nn.Module):
            size = sum(part.numel() * part.element_size() for part in value.parameters())
            about = {"materializer": self.name, "version": self.version, "spec": {}}
            write_torch_mlmodel(files, about, size=size, packages=())
        return {}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The object, its tensors over the verified bytes. No constructor runs; classes are imported by name."""
        check_all(files)
        return self.scatter(files)(0)

    def gather(self) -> Objects:
        """For the members of one container."""
        return Objects()

    def scatter(self, files: FileReader) -> Callable[[Any], Any]:
        """The inverse of :meth:`gather`."""
        return ObjectFile(files).get

    def describe(self, value: Any) -> dict[str, Any]:
        """Shape, dtype and device of a tensor; parameters and layers of a module; class and rates of an optimizer."""
        if isinstance(value, torch.Tensor):
            about = {"shape": list(value.shape), "dtype": _short(value.dtype), "device": str(value.device)}
            return {**about, "requires_grad": value.requires_grad, "nbytes": value.numel() * value.element_size()}
        if isinstance(value, torch.nn.Module):
            return describe_module(value)
        if isinstance(value, torch.optim.Optimizer):
            groups = value.param_groups
            rates = [group["lr"] for group in groups]
            return {"parameters": sum(part.numel() for group in groups for part in group["params"]), "lr": rates}
        return {}


def describe_module(module: Any) -> dict[str, Any]:
    """Numbers of parameters and layers, and where and of what kind they are. Looks at no data."""
    parameters = list(module.parameters())
    layers = Counter(type(part).__name__ for part in module.modules() if not any(True for _ in part.children()))
    return {
        "parameters": sum(part.numel() for part in parameters),
        "trainable_parameters": sum(part.numel() for part in parameters if part.requires_grad),
        "buffers": sum(1 for _ in module.buffers()),
        "layers": dict(layers.most_common()),
        "dtypes": sorted({_short(part.dtype) for part in parameters}),
        "devices": sorted({str(part.device) for part in parameters}),
        "nbytes": sum(part.numel() * part.element_size() for part in parameters),
        "training": module.training,
    }


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
