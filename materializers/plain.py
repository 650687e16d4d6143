"""Plain Python values and containers: one readable ``value.json``, exact; see ``tagged`` for the format.

A member that JSON cannot hold (an array, a frame, a model) is saved by its own materializer in a folder beside the JSON
(``item-0``, ``item-1``, ... in the order they are met), which refers to it. Bytes are a file of just these bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .base import LoadMember, SaveMember, Spec
from .files import FileReader, FileWriter
from .tagged import TAG, decode, dumps, encode, loads, plain_json, tag

__all__ = ["PlainMaterializer"]

_SHOWN_KEYS = 50
_SHOWN_TEXT = 200


class PlainMaterializer:
    """int, str, list, dict, datetime, Enum, dataclass, pydantic model and the like, exactly as they were."""

    name: ClassVar[str] = "plain"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """Without members of other materializers, which are refused here."""
        return self.save_with(value, files, None)

    def save_with(self, value: Any, files: FileWriter, save_member: SaveMember | None) -> Spec:
        """``{"tagged": True}`` when the JSON is more than plain, ``{"bytes": kind}`` for bytes.

        ``{"format": "jsonl"}`` for records in ``data.jsonl``, where that was chosen.
        """
        if type(value) in (bytes, bytearray):
            files.write("value.bin", value)
            return {"bytes": type(value).__name__}
        if files.form.format == "jsonl" and (lines := _lines(value)) is not None:
            files.write("data.jsonl", lines)
            return {"format": files.form_of_table().format}
        count = 0

        def leaf(item: Any, where: str) -> Any:
            nonlocal count
            if save_member is None or not where:
                raise MaterializationError(f"it is a {type_name(type(item))}, which has no exact form in JSON")
            folder = f"item-{count}"
            count += 1
            return tag("member", save_member(item, where, files.within(folder)), folder=folder)

        plain = plain_json(value)
        files.write("value.json", dumps(encode(value, leaf)) if plain is None else plain)
        return {"tagged": True} if plain is None else {}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The value, of one without members."""
        return self.load_with(files, spec, None)

    def load_with(self, files: FileReader, spec: Mapping[str, Any], load_member: LoadMember | None) -> Any:
        """The value with its members."""
        if "bytes" in spec:
            data = files.read("value.bin")
            return bytearray(data) if spec["bytes"] == "bytearray" else bytes(data)
        if "format" in spec:
            return [loads(line) for line in bytes(files.read("data.jsonl")).splitlines()]
        tree = loads(files.read("value.json"))
        if not spec.get("tagged"):
            return tree

        def leaf(node: Any) -> Any:
            if node[TAG] != "member" or load_member is None:
                raise MaterializationError(f"the stored JSON has a value of the unknown kind {node[TAG]!r}")
            return load_member(node["v"], files.within(node["folder"]))

        return decode(tree, leaf)

    def describe(self, value: Any) -> dict[str, Any]:
        """The length, the first keys, a number itself, the beginning of a text."""
        if isinstance(value, (list, tuple)):
            return {"length": len(value)}
        if isinstance(value, dict):
            return {"items": len(value), "keys": [str(key)[:_SHOWN_TEXT] for key in islice(value, _SHOWN_KEYS)]}
        if isinstance(value, str):
            return {"characters": len(value), "value": value[:_SHOWN_TEXT]}
        is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64)
        return {"value": repr(value)} if is_number else {}


def _lines(value: Any) -> bytes | None:
    """A list of dicts, each in a line of its own; None of anything else, and where plain JSON does not hold them."""
    if type(value) is not list or not set(map(type, value)) <= {dict}:
        return None
    lines = list(map(plain_json, value))
    return None if None in lines else b"".join(line + b"\n" for line in lines if line)
