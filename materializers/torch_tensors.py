"""Tensors in one safetensors file: what shared memory shares it again, and everything else has memory of its own.

A tensor that has its memory to itself is an entry of its shape, which other programs read. Tensors that share memory
(tied weights, views of one another) are views of one entry again. Of a view of something larger that is not saved too,
only the view is written.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from itertools import chain, count
from typing import Any

import torch

from ..core.errors import MaterializationError
from .files import FileReader, FileWriter
from .safetensors_file import Entry, read_safetensors, write_safetensors

__all__ = ["TensorFile", "Tensors", "dtype_named", "dtype_node"]

_FILE = "tensors.safetensors"
_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_WIDEST = 16  # bytes of a number
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_COMPRESSED: dict[Any, tuple[str, ...]] = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}
Node = dict[str, Any]


def dtype_node(dtype: Any) -> str:
    """A dtype as text."""
    return str(dtype).removeprefix("torch.")


def dtype_named(name: str) -> Any:
    """The dtype of :func:`dtype_node`."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise MaterializationError(f"the stored dtype {name!r} is none of PyTorch's here")
    return dtype


class Tensors:
    """Takes tensors in, each once, and writes them. ``encode`` is for the attributes that a tensor has."""

    def __init__(self, encode: Callable[[Any, str], Any]) -> None:
        self._encode = encode
        self._places: dict[int, int] = {}
        self._nodes: list[Node] = []
        self._dense: list[tuple[int, str, Any]] = []  # which node, the name, the tensor
        self._keep: list[Any] = []  # so that no id is used twice

    def __len__(self) -> int:
        return len(self._nodes)

    def forget(self, after: int) -> None:
        """Take back all but the first tensors."""
        self._places = {key: place for key, place in self._places.items() if place < after}
        self._dense = [item for item in self._dense if item[0] < after]
        del self._nodes[after:], self._keep[after:]

    def add(self, tensor: Any, name: str) -> int:
        """The number of a tensor. Raises MaterializationError for one that could not be the same again."""
        if id(tensor) in self._places:
            return self._places[id(tensor)]
        problem = _problem(tensor)
        if problem:
            raise MaterializationError(f"its tensor {name!r} {problem}" if name else f"it {problem}")
        place = self._places[id(tensor)] = len(self._nodes)
        node: Node = {}
        self._nodes.append(node)
        self._keep.append(tensor)
        if type(tensor) is torch.nn.Parameter:
            node["parameter"] = True
        if tensor.requires_grad:
            node["requires_grad"] = True
        if tensor.device.type != "cpu":
            node["device"] = str(tensor.device)
        if vars(tensor):
            node["attributes"] = self._encode(vars(tensor), name)
        self._add_data(tensor.detach(), node, place, name)
        return place

    def _add_data(self, tensor: Any, node: Node, place: int, name: str) -> None:
        if tensor.layout is torch.strided:
            self._dense.append((place, name, tensor.resolve_conj().resolve_neg()))
            return
        node["layout"], node["size"] = dtype_node(tensor.layout), list(tensor.shape)
        if tensor.layout is torch.sparse_coo:
            node["coalesced"] = tensor.is_coalesced()
            parts = {"indices": tensor._indices(), "values": tensor._values()}
        else:
            parts = {part: getattr(tensor, part)() for part in _COMPRESSED[tensor.layout]}
        node["parts"] = [self.add(part, f"{name}.{key}") for key, part in parts.items()]

    def write(self, files: FileWriter, name: str = _FILE) -> list[Node]:
        """Write the file; the nodes by which :class:`TensorFile` makes the tensors again."""
        entries: dict[str, Entry] = {}
        for group in _by_memory(self._dense):
            _, first, tensor = group[0]
            key = _free(first, entries)
            one_view = all(_view(tensor) == _view(other) for _, _, other in group)
            if one_view:
                data, more = _alone(tensor)
                placed = [(place, more) for place, _, _ in group]
            else:
                data, placed = _together(group)
            entries[key] = _entry(data)
            for place, more in placed:
                self._nodes[place] |= {"in": key, **more}
        write_safetensors(files, name, entries, {"format": "pt"})
        return self._nodes


def _free(name: str, taken: Container[str]) -> str:
    """The name, or one like it that is not taken."""
    names = chain([name or "tensor"], (f"{name}~{number}" for number in count(1)))
    return next(free for free in names if free not in taken and free != "__metadata__")


def _problem(tensor: Any) -> str | None:
    """Why a tensor could not be the same again, and the way out; ``None`` if it can."""
    if tensor.is_nested or tensor.is_quantized or tensor.is_mkldnn:
        ways = {"nested": "its .unbind(), a tuple", "quantized": "its .dequantize()", "mkldnn": "its .to_dense()"}
        kind = next(kind for kind in ways if getattr(tensor, f"is_{kind}"))
        return f"is {kind}; return {ways[kind]}"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"is a {type(tensor).__qualname__}, more than a tensor's data; return that"
    if tensor.grad_fn is not None:
        return "is the result of a computation that gradients flow through; return its .detach()"
    if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
        return "has hooks, which are code; remove them"
    if tensor.device.type == "meta":
        return "is on the device 'meta' and has no data; load its weights first"
    if tensor.layout not in (torch.strided, torch.sparse_coo, *_COMPRESSED):
        return f"has the layout {tensor.layout}"
    if any(getattr(tensor, "names", ())):
        return "has names of dimensions; return .rename(None) of it"
    return None


# ---- memory


def _by_memory(dense: list[tuple[int, str, Any]]) -> list[list[tuple[int, str, Any]]]:
    """The tensors in groups that share memory."""
    groups: dict[Any, list[tuple[int, str, Any]]] = {}
    for item in dense:
        tensor = item[2]
        storage = tensor.untyped_storage()
        key = (str(tensor.device), storage.data_ptr()) if tensor.numel() else item[0]
        groups.setdefault(key, []).append(item)
    return [part for group in groups.values() for part in _overlapping(group)]


def _overlapping(group: list[tuple[int, str, Any]]) -> list[list[tuple[int, str, Any]]]:
    """Slices of one storage that do not touch have no memory in common."""
    if len(group) == 1:
        return [group]
    found: list[tuple[int, list[tuple[int, str, Any]]]] = []
    for item in sorted(group, key=lambda item: (_extent(item[2]), item[0])):
        start, end = _extent(item[2])
        if found and start < found[-1][0]:
            last_end, members = found.pop()
            found.append((max(end, last_end), [*members, item]))
        else:
            found.append((end, [item]))
    return [sorted(members, key=lambda item: item[0]) for _, members in found]


def _extent(tensor: Any) -> tuple[int, int]:
    """The first and the last byte of a storage that a tensor uses."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.storage_offset() * tensor.element_size()
    return start, start + (last + 1) * tensor.element_size()


def _view(tensor: Any) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()


def _alone(tensor: Any) -> tuple[Any, Node]:
    """The tensor in C order, and the strides to lay it out by again where it fills its memory in another order."""
    more: Node = {} if tensor.dtype in _NAMES else {"dtype": dtype_node(tensor.dtype)}
    if tensor.is_contiguous():
        return tensor, more
    order = sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim))
    dense = tensor.permute(order).is_contiguous()
    return tensor.contiguous(), {**more, "stride": list(tensor.stride())} if dense else more


def _together(group: list[tuple[int, str, Any]]) -> tuple[Any, list[tuple[int, Node]]]:
    """The memory that tensors share, as bytes, and where each is in it."""
    extents = [_extent(tensor) for _, _, tensor in group]
    start, end = min(low for low, _ in extents), max(high for _, high in extents)
    storage = group[0][2].untyped_storage()
    memory = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, start, (end - start,), (1,))
    return memory, [
        (
            place,
            {
                "at": low - start,
                "dtype": dtype_node(tensor.dtype),
                "shape": list(tensor.shape),
                "stride": list(tensor.stride()),
            },
        )
        for (place, _, tensor), (low, _) in zip(group, extents, strict=True)
    ]


def _entry(tensor: Any) -> Entry:
    """A tensor in C order as an entry; of a dtype that the format does not know, as bytes with one more dimension."""
    tensor = tensor.cpu()
    shape = tuple(tensor.shape)
    flat = tensor.as_strided((tensor.numel(),), (1,))  # one element may have any stride
    data = flat.view(torch.uint8).numpy().data if tensor.numel() else b""
    if tensor.dtype in _NAMES:
        return Entry(_NAMES[tensor.dtype], shape, data)
    return Entry("U8", (*shape, tensor.element_size()), data)


# ---- and back


def _over(data: Any, dtype: Any, alignment: int) -> Any:
    """A tensor over these bytes, or over a copy where they lie so that PyTorch would crash (wide complex numbers)."""
    tensor = torch.frombuffer(data, dtype=dtype)
    return (
        tensor if tensor.data_ptr() % alignment == 0 else torch.frombuffer(data, dtype=torch.uint8).clone().view(dtype)
    )


class TensorFile:
    """The tensors of a file, each made when it is asked for, once. All come to the CPU."""

    def __init__(self, files: FileReader, nodes: list[Node], decode: Callable[[Any], Any], name: str = _FILE) -> None:
        self._entries = read_safetensors(files.read(name))
        self._nodes = nodes
        self._decode = decode
        self._memory: dict[str, Any] = {}
        self._made: dict[int, Any] = {}

    def get(self, place: int) -> Any:
        """The tensor of a number that :meth:`Tensors.add` returned."""
        if place not in self._made:
            self._made[place] = self._make(self._nodes[place])
        return self._made[place]

    def _make(self, node: Mapping[str, Any]) -> Any:
        tensor = self._dense(node) if "in" in node else self._sparse(node)
        if node.get("parameter"):
            tensor = torch.nn.Parameter(tensor, requires_grad=node.get("requires_grad", False))
        elif node.get("requires_grad"):
            tensor.requires_grad_()
        for name, item in node.get("attributes", {}).items():
            vars(tensor)[name] = self._decode(item)
        return tensor

    def _dense(self, node: Mapping[str, Any]) -> Any:
        entry = self._entries[node["in"]]
        if "at" in node:
            return self._part(entry, node)
        if node["in"] not in self._memory:
            self._memory[node["in"]] = self._whole(entry, node)
        return self._memory[node["in"]].detach()

    def _whole(self, entry: Entry, node: Mapping[str, Any]) -> Any:
        dtype, shape = _DTYPES[entry.dtype], entry.shape
        if "dtype" in node:
            dtype, shape = dtype_named(node["dtype"]), shape[:-1]
        if not len(entry.data):
            tensor = torch.empty(shape, dtype=dtype)
        else:
            tensor = _over(entry.data, dtype, dtype.itemsize).view(shape)
        if "stride" in node:
            tensor = torch.empty_strided(shape, node["stride"], dtype=dtype).copy_(tensor)
        return tensor

    def _part(self, entry: Entry, node: Mapping[str, Any]) -> Any:
        if node["in"] not in self._memory:
            self._memory[node["in"]] = _over(entry.data, torch.uint8, _WIDEST)
        memory = self._memory[node["in"]]
        dtype = dtype_named(node["dtype"])
        offset = memory.storage_offset() + node["at"]
        if offset % dtype.itemsize:
            raise MaterializationError(f"a stored tensor of {dtype} is at byte {offset}")
        view = torch.empty(0, dtype=dtype)
        return view.set_(memory.untyped_storage(), offset // dtype.itemsize, node["shape"], node["stride"])

    def _sparse(self, node: Mapping[str, Any]) -> Any:
        parts = [self.get(part) for part in node["parts"]]
        with torch.sparse.check_sparse_tensor_invariants():
            if node["layout"] == "sparse_coo":
                return torch.sparse_coo_tensor(*parts, node["size"], is_coalesced=node["coalesced"])
            layout = next(layout for layout in _COMPRESSED if dtype_node(layout) == node["layout"])
            return torch.sparse_compressed_tensor(*parts, node["size"], layout=layout)
