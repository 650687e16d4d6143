"""From what a person types, ``FILE[:NAME]`` or a bare name, to the pipeline that is meant."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .errors import ConfigError, LoadError, Problem, did_you_mean
from .pipeline import Pipeline

__all__ = ["find_file", "load_pipeline"]

_FOLDERS = ("flows", "pipelines", ".")
_LIBRARIES = {"site-packages", "dist-packages"}
_LOADED: dict[Path, tuple[int, int]] = {}  # what each file was like when it was imported


def load_pipeline(target: str | Path) -> Pipeline:
    """The pipeline of ``FILE``, ``FILE:NAME``, ``NAME`` or ``NAME:NAME``; its file is imported.

    A bare name is looked for as ``flows/NAME.py``, ``pipelines/NAME.py`` and ``NAME.py``, from the working directory. A
    file that this process has imported already is imported again only if it has changed since. Raises
    :class:`~tailrace.ConfigError` when there is no file or no pipeline, or several to choose from, and
    :class:`~tailrace.LoadError` when the file cannot be imported.
    """
    target = str(target)
    path, variable = find_file(target)
    module = _import(path)
    found = {name: value for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if variable:
        if variable in found:
            return found[variable]
        raise _usage(target, f"{path} has no pipeline {variable!r}.{did_you_mean(variable, found)}", str(path))
    own = {name: value for name, value in found.items() if _is_own(value, module)}
    distinct = {id(value): name for name, value in reversed((own or found).items())}
    if len(distinct) == 1:
        return found[next(iter(distinct.values()))]
    if found:
        choices = ", ".join(f"{target}:{name}" for name in reversed(distinct.values()))
        raise _usage(target, f"It has several pipelines; name one of {choices}", str(path))
    advice = "It defines no pipeline. Write @pipeline above a function that calls steps, or NAME = Pipeline(...)"
    raise _usage(target, advice, str(path))


def _usage(target: str, message: str, place: str) -> ConfigError:
    return ConfigError(f"There is no pipeline to run in {target!r}", [Problem(message, place)])


def _is_own(pipeline: Pipeline, module: ModuleType) -> bool:
    """Whether the pipeline was made in this module, and not imported into it to be part of another."""
    return pipeline.function is None or pipeline.function.__module__ == module.__name__


def find_file(target: str) -> tuple[Path, str]:
    """The file that :func:`load_pipeline` imports and, where one was named, the variable."""
    head, colon, tail = target.rpartition(":")
    name, variable = (head, tail) if colon and tail.isidentifier() and not Path(target).exists() else (target, "")
    path = Path(name)
    if path.is_file():
        return path, variable
    if path.suffix == ".py" or len(path.parts) != 1:
        raise _usage(target, "There is no such file", str(path))
    tried = [Path(folder, f"{name}.py") for folder in _FOLDERS]
    found = next((path for path in tried if path.is_file()), None)
    if found is not None:
        return found, variable
    known = {file.stem for folder in _FOLDERS[:2] for file in Path(folder).glob("*.py")}
    raise _usage(target, f"There is no such file.{did_you_mean(name, known)}", " or ".join(map(str, tried)))


def _import(path: Path) -> ModuleType:
    """Import a file as ``python FILE`` would: its folder first on the path, and its classes found again by its name."""
    path = path.resolve()
    name = path.stem if _is_free(path) else f"{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    folder = str(path.parent)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    stamp = (path.stat().st_mtime_ns, path.stat().st_size)
    known = sys.modules.get(name)
    if known is not None and _LOADED.get(path, stamp) == stamp:
        return known  # imported twice, each of its classes would be two
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _usage(str(path), "It is no Python file", str(path))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise LoadError(f"{path.name} cannot be imported.") from error
    _LOADED[path] = stamp
    return module


def _is_free(path: Path) -> bool:
    """Whether the file can have the module name that is its stem, without hiding a library or what is imported already.

    A namesake in another folder of the path may be hidden, and is anyway by the file's own folder, which comes first.
    So a DAG file, which Airflow imports by a name of its own, may be called like its pipeline's.
    """
    if not path.stem.isidentifier() or path.stem in sys.stdlib_module_names:
        return False
    if path.stem in sys.modules:
        return Path(getattr(sys.modules[path.stem], "__file__", None) or "").resolve() == path
    try:
        spec = importlib.util.find_spec(path.stem)
    except ImportError:
        return False
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    found = [Path(place).resolve() for place in places if place]
    return path in found or not any(_LIBRARIES & set(place.parts) for place in found)
