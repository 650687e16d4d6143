"""Text for people and for language models: reports and prompts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .asset import Asset
from .errors import AssetError, did_you_mean

__all__ = ["Document", "Prompt", "Report", "parts"]

_SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".json": "json",
    ".pdf": "pdf",
}
_HTML = re.compile(r"\s*<(!doctype|!--|[a-z][a-z0-9]*[\s/>])", re.IGNORECASE)
_VARIABLE = re.compile(r"\{\{(\w+)\}\}|\{([^\W\d]\w*)\}")


@dataclass(frozen=True, slots=True)
class Document:
    """Text, or a file's bytes, that is stored as one file which other programs open: ``suffix`` says as what."""

    content: str | bytes
    suffix: str


class Report(Asset):
    """Something to read: HTML, Markdown or JSON text, a PDF's bytes, data for a JSON document, or such a file's path.

    ``format`` (``html``, ``markdown``, ``json``, ``pdf``) is detected when it is not given: from the path's suffix,
    else from the content; text that is neither HTML nor JSON is Markdown.
    """

    fields = ("format",)

    def __init__(self, data: Any = None, format: str | None = None, *, name: str | None = None, **common: Any) -> None:
        super().__init__(data, name, **common)
        self.format = format or self._detect()
        if self.format not in _SUFFIXES.values():
            formats = sorted(set(_SUFFIXES.values()))
            raise AssetError(f"No report has the format {self.format!r}.{did_you_mean(self.format, formats)}")

    @property
    def content(self) -> Any:
        """The text, bytes, data or path that the report consists of."""
        return self.data

    def to_parts(self) -> tuple[Any, dict[str, Any]]:
        """What is stored, text and bytes as a :class:`Document`, and the header."""
        data, header = super().to_parts()
        if isinstance(data, str | bytes):
            data = Document(data, next(suffix for suffix, name in _SUFFIXES.items() if name == self.format))
        return data, header

    def _accept(self, data: Any) -> Any:
        if isinstance(data, Document):
            return data.content
        if isinstance(data, os.PathLike):
            return Path(data)
        if isinstance(data, str | bytes | Mapping | list):
            return data
        raise self._refuse(data, "text, bytes, JSON data or a path")

    def _detect(self) -> str:
        if isinstance(self.data, Path):
            return _SUFFIXES.get(self.data.suffix.lower(), self.data.suffix)
        if isinstance(self.data, bytes):
            return "pdf" if self.data.startswith(b"%PDF-") else self._refuse_bytes()
        if not isinstance(self.data, str):
            return "json"
        if _HTML.match(self.data):
            return "html"
        return "json" if _is_json(self.data) else "markdown"

    def _refuse_bytes(self) -> str:
        raise AssetError("The bytes of a Report are no PDF. Name their format, or decode them to text.")


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def parts(text: str) -> list[str]:
    """What a prompt's text consists of: literal text and the names of variables by turns, text first and last."""
    found, end = [""], 0
    for match in _VARIABLE.finditer(text):
        found[-1] += text[end : match.start()] + (f"{{{match[1]}}}" if match[1] else "")
        found += [match[2], ""] if match[2] else []
        end = match.end()
    found[-1] += text[end:]
    return found


class Prompt(Asset):
    """Text with ``{variables}``, or chat messages (mappings with ``role`` and ``content``) whose contents have them.

    A variable is a plain name in braces; ``{{name}}`` stands for the braces themselves, and any other brace is text, so
    that JSON can be written in a prompt as it is.
    """

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that :meth:`render` needs, in the order in which they come."""
        return tuple(dict.fromkeys(name for text in self._texts() for name in parts(text)[1::2]))

    def render(self, /, **values: Any) -> Any:
        """The text, or the messages, with the variables filled in. What is put in is not searched for variables again.

        Raises :class:`AssetError` that names the variables without a value. Values without a variable are ignored.
        """
        missing = [name for name in self.variables if name not in values]
        if missing:
            label = f"prompt {self.name!r}" if self.name else "prompt"
            call = ", ".join(f"{name}=..." for name in missing)
            raise AssetError(f"The {label} needs a value for {', '.join(map(repr, missing))}: render({call}).")

        def fill(text: Any) -> Any:
            if not isinstance(text, str):
                return text
            return "".join(str(values[part]) if index % 2 else part for index, part in enumerate(parts(text)))

        if isinstance(self.data, str):
            return fill(self.data)
        return [{**message, "content": fill(message["content"])} for message in self.data]

    def _texts(self) -> list[str]:
        if isinstance(self.data, str):
            return [self.data]
        return [message["content"] for message in self.data if isinstance(message["content"], str)]

    def _accept(self, data: Any) -> Any:
        if isinstance(data, str):
            return data
        if isinstance(data, list | tuple) and all(
            isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in data
        ):
            return [dict(message) for message in data]
        raise self._refuse(data, "text, or a list of messages with 'role' and 'content'")
