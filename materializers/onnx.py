"""ONNX models as the protobuf file that every ONNX runtime reads: exact, and the same bytes for equal models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import onnx
from google.protobuf.message import EncodeError, Message

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .mlmodel import read_all, write_mlmodel

__all__ = ["OnnxMaterializer"]

_SHOWN = 100


class OnnxMaterializer:
    """``onnx.ModelProto``, with all its weights inside."""

    name: ClassVar[str] = "onnx"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``model.onnx``. Raises MaterializationError for weights in other files, and for more than 2 GiB."""
        _check_inside(value)
        try:
            data = value.SerializeToString(deterministic=True)
        except (EncodeError, ValueError) as error:
            raise MaterializationError(
                f"protobuf does not take it, which it does up to 2 GiB ({error}). Save it into a folder by "
                "onnx.save_model(..., save_as_external_data=True), and return the folder's Path"
            ) from error
        files.write("model.onnx", data)
        about = {
            "code": None,
            "data": "model.onnx",
            "onnx_session_options": None,
            "onnx_version": onnx.__version__,
            "providers": ["CPUExecutionProvider"],
        }
        packages = ("onnx", "onnxruntime", "numpy")
        write_mlmodel(files, "onnx", about, data="model.onnx", size=len(data), packages=packages, predicts=True)
        return {}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The model, from the verified bytes. Nothing in it is run, and no other file is opened."""
        model = onnx.ModelProto.FromString(read_all(files)["model.onnx"])
        _check_inside(model)
        return model

    def describe(self, value: Any) -> dict[str, Any]:
        """Producer, operator sets, inputs and outputs with shapes, numbers of nodes and parameters."""
        graph = value.graph
        weights = {tensor.name for tensor in graph.initializer}
        return {
            "producer": " ".join(filter(None, (value.producer_name, value.producer_version))),
            "ir_version": value.ir_version,
            "opsets": {part.domain or "ai.onnx": part.version for part in value.opset_import},
            "inputs": {part.name: _type(part.type) for part in graph.input[:_SHOWN] if part.name not in weights},
            "outputs": {part.name: _type(part.type) for part in graph.output[:_SHOWN]},
            "nodes": len(graph.node),
            "parameters": sum(math.prod(tensor.dims) for tensor in graph.initializer),
        }


def _check_inside(model: Any) -> None:
    """That the model holds its weights itself: what it says of places outside is never followed."""
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise MaterializationError(
                f"its tensor {tensor.name!r} is in another file. Load it with its weights (onnx.load does), or return "
                "the Path of the folder that holds model and weights"
            )


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a model, at any depth: in graphs, attributes, functions, sparse tensors, training steps."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, content in message.ListFields():
        if field.message_type is not None:
            for part in (content,) if isinstance(content, Message) else content:
                yield from _tensors(part)


def _type(kind: Any) -> str:
    """``"float[N, 3]"``; of what is no tensor the kind (``"sequence_type"``)."""
    which = kind.WhichOneof("value")
    if which != "tensor_type":
        return which or "unknown"
    tensor = kind.tensor_type
    name: str = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return name
    sizes = (
        part.dim_param or (str(part.dim_value) if part.HasField("dim_value") else "?") for part in tensor.shape.dim
    )
    return f"{name}[{', '.join(sizes)}]"
