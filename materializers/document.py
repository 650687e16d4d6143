"""Text or bytes as one file that other programs open by its suffix: a report is an .html file in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.documents import Document
from .base import Spec
from .files import FileReader, FileWriter

__all__ = ["DocumentMaterializer"]


class DocumentMaterializer:
    """A :class:`~tailrace.core.documents.Document`: text in UTF-8, bytes as they are."""

    name: ClassVar[str] = "document"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Document, files: FileWriter) -> Spec:
        """One file, ``document.html`` and the like."""
        text = isinstance(value.content, str)
        data = value.content.encode("utf-8", "surrogatepass") if isinstance(value.content, str) else value.content
        files.write(f"document{value.suffix}", data)
        return {"suffix": value.suffix, "text": text}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Document:
        """The document."""
        data = bytes(files.read(f"document{spec['suffix']}"))
        return Document(data.decode("utf-8", "surrogatepass") if spec["text"] else data, spec["suffix"])

    def describe(self, value: Document) -> dict[str, Any]:
        """Its characters, or bytes."""
        return {"characters" if isinstance(value.content, str) else "bytes": len(value.content)}
