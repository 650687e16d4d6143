"""The key of a task: a digest of its code, what it is given, what it depends on, and what its outputs are called."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.annotations import describe
from ...core.errors import MaterializationError, PipelineError, Problem
from ...core.plan import Node
from ...core.refs import Manifest
from ...core.step import Step
from ...materializers.files import digest_bytes, digest_file
from ...materializers.tagged import dumps, encode
from .code import code_digest, code_of
from .content import content_digest

__all__ = ["FORMAT", "artifact_token", "task_key", "value_token"]

FORMAT = 1
"""Of keys and entries; another number is another cache."""


def task_key(node: Node, inputs: Mapping[str, Any], *, project: str, root: Path, allow_pickle: str) -> str:
    """The key of a task whose inputs are these tokens, by parameter. Equal keys stand for equal outputs.

    ``root`` is the folder that the files in ``depends_on`` are below. What decides whether the step runs is no part of
    it. Raises :class:`~tailrace.PipelineError` for a dependency that is nowhere.
    """
    step = node.step
    defaults = {
        name: code_of(declared.default)
        for name, declared in step.parameters.items()
        if name not in inputs and declared.default is not inspect.Parameter.empty
    }
    document = {
        "format": FORMAT,
        "code": _pinned(step, project, root) if step.version is not None else _code(step),
        "inputs": sorted(inputs.items()),
        "takes": sorted((name, _shown(annotation)) for name, annotation in step.annotations.items()),
        "defaults": sorted(defaults.items()),
        "outputs": [output.name for output in node.outputs],
        "depends": [_dependency(item, step, root) for item in step.depends_on],
        "pickle": allow_pickle,
    }
    return digest_bytes(dumps(document)).rpartition(":")[2]


def value_token(value: Any, step: str, parameter: str) -> Any:
    """What stands for a parameter's value. Raises :class:`~tailrace.MaterializationError` where nothing does."""
    try:
        return ["value", os.fspath(value)] if isinstance(value, os.PathLike) else ["value", encode(value)]
    except MaterializationError as error:
        try:
            return ["content", content_digest(value)]
        except MaterializationError:
            what = f"The step {step!r} cannot be cached: its parameter {parameter!r} has no exact form: {error}."
            raise MaterializationError(f"{what} Give a plain value, or take cache=True off the step.") from error


def artifact_token(digest: str, manifest: Manifest | None = None) -> Any:
    """What stands for an artifact: its content, and where the step sees an artifact type, what that says beside it."""
    if manifest is None:
        return ["artifact", digest]
    said = manifest.metadata.get("asset", {})
    return ["artifact", digest, manifest.type, manifest.name, manifest.version, manifest.bare, said]


def _shown(annotation: Any) -> str:
    """How inputs arrive and outputs are stored; an object in it by its type, since its address is another each time."""
    return re.sub(r" at 0x[0-9a-f]+", "", describe(annotation))


def _code(step: Step[Any, Any]) -> Any:
    """Byte code means something to one minor version of Python, and results may differ with it."""
    return [sys.implementation.name, *sys.version_info[:2], sys.flags.optimize, code_digest(step.fn)]


def _pinned(step: Step[Any, Any], project: str, root: Path) -> Any:
    """Which function it is, where its author says which version: the project, the file below its root, the name."""
    function = inspect.unwrap(step.fn)
    code = getattr(function, "__code__", None)
    file = Path(code.co_filename if code else getattr(function, "__module__", ""))
    place = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return ["version", step.version, project, place, getattr(function, "__qualname__", step.name)]


def _dependency(item: Any, step: Step[Any, Any], root: Path) -> Any:
    if not isinstance(item, str | os.PathLike):
        return ["object", code_digest(item) if inspect.isfunction(item) else code_of(item)]
    path = root / Path(item).expanduser()
    if path.exists():
        return ["files", os.fspath(item), [[name, *digest_file(file)] for name, file in _files(path)]]
    import importlib.metadata  # twenty milliseconds, for a step that names one

    try:
        return ["distribution", os.fspath(item), importlib.metadata.version(os.fspath(item))]
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        what = f"depends_on names {os.fspath(item)!r}: there is no such file below {str(root)!r}, and no such package"
        raise PipelineError("The step cannot be cached", [Problem(what, f"step {step.name!r}")]) from error


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """The file, or those of a folder but for byte code, by their names in it."""
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(path).as_posix(), file
