"""A prompt as a template of MLflow's: in its own form, or in Jinja's where that form cannot say it.

MLflow's form has ``{{variable}}`` in two braces, and no way to write that as text. What has ``{%`` and ``%}`` goes
through Jinja, which has one; but there a variable without a value is empty, and no error.
"""

from __future__ import annotations

import re
from typing import Any

from ...core.documents import Prompt, parts
from ...core.errors import DestinationError

__all__ = ["template_of"]

_FILLED = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")  # what MLflow fills in
_OPENING = re.compile(r"\{(?=[{%#]|\Z)")  # what may open something for Jinja; at the end, together with what follows
_MADE_JINJA = "{% raw %}{% endraw %}"  # at the end, else Jinja would drop a newline there
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ARGUMENTS = {"self", "allow_partial", "use_jinja_sandbox"}  # of PromptVersion.format, so that no variable has the name
_NOT_PLAIN = {"prompt"}  # likewise, of what it calls
_NOT_JINJA = {"not", "true", "false", "none", "True", "False", "None"}


def template_of(prompt: Prompt) -> str | list[dict[str, str]]:
    """The template, of which MLflow's ``format`` makes what :meth:`Prompt.render` makes of the prompt.

    Raises :class:`~tailrace.DestinationError` for what MLflow would render otherwise: variables by names that it does
    not take, and messages that are more than a role and text.
    """
    texts = [parts(prompt.data)] if isinstance(prompt.data, str) else [parts(_content(item)) for item in prompt.data]
    plain = all(map(_is_plain, texts))
    refused = [name for name in prompt.variables if not _takes(name, plain)]
    if refused:
        raise DestinationError(f"it takes no variable of the name {', '.join(map(repr, refused))}")
    written = [_plain(text) if plain else _jinja(text) for text in texts]
    if isinstance(prompt.data, str):
        return written[0]
    if not written:
        raise DestinationError("it has no messages")
    return [{"role": item["role"], "content": text} for item, text in zip(prompt.data, written, strict=True)]


def _content(message: dict[str, Any]) -> str:
    if set(message) != {"role", "content"} or not all(isinstance(value, str) for value in message.values()):
        raise DestinationError(
            f"of a message it renders the role and the text and nothing else, and one is {repr(message)[:200]}"
        )
    return str(message["content"])


def _takes(name: str, plain: bool) -> bool:
    known = _ARGUMENTS if plain else _ARGUMENTS | _NOT_JINJA
    return _VARIABLE.fullmatch(name) is not None and name not in known


def _is_plain(text: list[str]) -> bool:
    plain, names = _plain(text), text[1::2]
    return _FILLED.findall(plain) == names and not ("{%" in plain and "%}" in plain) and _NOT_PLAIN.isdisjoint(names)


def _plain(text: list[str]) -> str:
    return "".join(f"{{{{{part}}}}}" if index % 2 else part for index, part in enumerate(text))


def _jinja(text: list[str]) -> str:
    """Every brace that would open something, and every carriage return (a newline for Jinja), in quotes."""
    quoted = (part if index % 2 else _OPENING.sub("{{ '{' }}", part) for index, part in enumerate(text))
    return _plain(list(quoted)).replace("\r", r"{{ '\r' }}") + _MADE_JINJA
