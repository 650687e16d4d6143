"""Path templates: from ``{run_id}/models/{artifact_name}`` to a key that no other output of the run gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

from ..core.errors import InvalidKey, did_you_mean
from ..core.names import check_key, segment

__all__ = ["DEFAULT_PATH", "PLACEHOLDERS", "check_template", "render"]

DEFAULT_PATH = "{project}/{date}/{run_id}/data/{step_name}/{artifact_name}"
PLACEHOLDERS = (
    "run_id",
    "step_name",
    "artifact_name",
    "artifact_type",
    "project",
    "date",
    "pipeline",
    "map_index",
)

_VARYING = {"step_name", "artifact_name", "artifact_type", "map_index"}  # within one run; the others are constant
_LITERAL = re.compile(r"[A-Za-z0-9._=-]*")

Part = tuple[str, bool]  # text, and whether it is a placeholder
Segments = tuple[tuple[Part, ...], ...]


def check_template(template: str) -> list[str]:
    """Everything that is wrong with a template, as sentences; nothing if it is sound."""
    try:
        segments, problems = _split(template)
    except ValueError as error:
        return [f"This is no template: {error}."]
    for parts in segments:
        literal = "".join(text for text, placeholder in parts if not placeholder)
        if not _LITERAL.fullmatch(literal):
            problems.append(f"A path holds letters, digits, '.', '_', '=', '-' and placeholders, not {literal!r}.")
        elif not any(placeholder for _, placeholder in parts):
            try:
                check_key(literal)
            except InvalidKey:
                problems.append(f"{literal!r} cannot be a folder below the store's root.")
    return problems


def _split(template: str) -> tuple[Segments, list[str]]:
    """The segments of a template, and what is wrong with its placeholders."""
    segments: list[list[Part]] = [[]]
    problems = []
    for literal, name, form, conversion in Formatter().parse(template.removesuffix("/")):
        first, *others = literal.split("/")
        segments[-1].append((first, False))
        segments += [[(text, False)] for text in others]
        if name is None:
            continue
        if name not in PLACEHOLDERS:
            problems.append(f"There is no placeholder {{{name}}}.{did_you_mean(name, PLACEHOLDERS)}")
        elif form or conversion:
            problems.append(f"Write {{{name}}} plainly, without a conversion or format.")
        segments[-1].append((name, True))
    return tuple(tuple(part for part in parts if part[0]) for parts in segments), problems


def _determined(segments: Segments) -> set[str]:
    """The varying placeholders whose values can be read off the path.

    A segment with one unknown gives it away; ``{step_name}-{artifact_name}`` does not, since a name may hold a ``-``.
    """
    known: set[str] = set()
    while True:
        unknown = [{text for text, placeholder in parts if placeholder} & _VARYING - known for parts in segments]
        found = {name for names in unknown if len(names) == 1 for name in names}
        if not found:
            return known
        known |= found


@lru_cache(maxsize=256)
def _complete(template: str, mapped: bool) -> Segments:
    """The template's segments, and one more for each of step, output and map index that they do not give away."""
    segments, _ = _split(template)
    needed = ["step_name", "artifact_name"]
    if mapped or any(("map_index", True) in parts for parts in segments):
        needed.append("map_index")
    for name in needed:
        if name not in _determined(segments):
            segments += (((name, True),),)
    return segments


def render(template: str, values: Mapping[str, str], *, map_index: int | None = None) -> str:
    """The key of one output of a run. ``values`` has every placeholder's value but the map index.

    Two outputs of one run, different in step, output or map index, never get the same key from one template: what the
    template leaves out is appended. The index has six digits at least, and is ``all`` where a step is not mapped.
    A sound template (see :func:`check_template`) gives a safe key whatever the values.
    """
    index = "all" if map_index is None else f"{map_index:06d}"
    values = {**values, "map_index": index}
    return "/".join(_segment(parts, values) for parts in _complete(template, map_index is not None))


def _segment(parts: tuple[Part, ...], values: Mapping[str, str]) -> str:
    text = "".join(values[text] if placeholder else text for text, placeholder in parts)
    fixed = not any(placeholder for _, placeholder in parts)
    return text if fixed else segment(text)  # as a whole: what two safe parts make together need not be safe
