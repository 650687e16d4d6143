"""A digest of what a function does: its byte code, and that of the project's own code which it names, followed by name.

Byte code is what really runs, also where a file was edited since it was imported, in a notebook, and for a lambda. It
does not change with comments, formatting and annotations. It does with docstrings, names, and the version of Python.

What is followed: global names, names of enclosing functions, attributes of the project's modules, imports inside a
function, defaults, decorators, the members and bases of classes. What is not: the code of installed packages and of the
standard library, methods of an object that arrives as an argument, and names that are put together while running.
"""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from ...core.errors import MaterializationError
from ...core.step import Step
from ...core.typenames import type_name
from ...materializers.files import digest_bytes
from ...materializers.tagged import Encoder, dumps, is_plain
from .content import content_digest

__all__ = ["code_digest", "code_of"]

_PACKAGE = Path(__file__).parents[2]
_ROOMS = frozenset({"__init__.py", "adapters", "catalog", "cli", "core", "materializers", "routing", "stores"})
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CONTAINERS = frozenset({list, dict, set, bytearray})
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class _Known:
    """A digest, and every name that was looked up for it, so that a name that means something else now is noticed.

    So is a container, or an object of the project, that holds something else now.
    """

    digest: str
    names: tuple[tuple[Any, str, Any], ...]
    changing: tuple[tuple[Any, bytes], ...]

    def holds(self) -> bool:
        same = all(_now(space, name) is found for space, name, found in self.names)
        return same and all(dumps(code_of(value)) == before for value, before in self.changing)


_KNOWN: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def code_digest(function: Any) -> str:
    """The digest of a function and of what it uses. Taken once per process, and again when a name is bound anew."""
    if not isinstance(function, FunctionType):
        return digest_bytes(dumps(code_of(function)))
    known = _KNOWN.get(function)
    if known is None or not known.holds():
        walk = _Walk(function)
        parts = walk.finished()
        changing = tuple((value, dumps(code_of(value))) for value in walk.changing)
        known = _KNOWN[function] = _Known(digest_bytes(dumps(parts)), tuple(walk.names), changing)
    return known.digest


def code_of(value: Any) -> Any:
    """Any object as JSON-able data: a constant by its value, a function or class by its code."""
    walk = _Walk()
    return [walk.visit(value), walk.finished()]


def _now(space: Any, name: str) -> Any:
    if isinstance(space, CellType):
        try:
            return space.cell_contents
        except ValueError:  # not yet assigned in the enclosing function
            return _ABSENT
    return space.get(name, _ABSENT)


class _Walk:
    """Follows one object. ``parts`` is what was found, in an order that depends on nothing but the code."""

    def __init__(self, root: FunctionType | None = None) -> None:
        self.parts: list[Any] = []
        self.names: list[tuple[Any, str, Any]] = []
        self.changing: list[Any] = []
        self._seen: dict[int, int] = {}
        self._waiting: list[tuple[Any, Callable[[Any], Any]]] = []  # not by recursion: a project's calls go deep
        self._own = ""
        if root is not None:  # whose ever it is: a step may be in a package that is installed
            self._own = (root.__module__ or "").partition(".")[0]
            self._once(root, self._function)

    def finished(self) -> list[Any]:
        """The parts, when all that was met is followed."""
        for value, part in self._waiting:  # which grows meanwhile
            self.parts.append(part(value))
        return self.parts

    def visit(self, value: Any) -> Any:
        """What stands for a value in the parts of what uses it; code is noted down when it is met first."""
        if isinstance(value, FunctionType):
            return self._once(value, self._function) if self._is_own(value) else self._library(value)
        if isinstance(value, type):
            return self._once(value, self._class) if self._is_own(value) else self._library(value)
        if isinstance(value, ModuleType):
            return self._once(value, self._module) if _is_project_module(value) else ["module", value.__name__]
        if isinstance(value, Step):
            return ["step", self.visit(value.fn), self.visit(dict(value.fixed))]
        if isinstance(value, functools.partial):
            return ["partial", self.visit(value.func), self.visit(value.args), self.visit(value.keywords)]
        if isinstance(value, MethodType):
            return ["method", self.visit(value.__func__), self.visit(value.__self__)]
        if isinstance(value, property):
            return ["property", *map(self.visit, (value.fget, value.fset, value.fdel))]
        if isinstance(value, classmethod | staticmethod):
            return [type(value).__name__, self.visit(value.__func__)]
        if isinstance(value, functools.cached_property):
            return ["cached_property", self.visit(value.func)]
        if isinstance(
            getattr(value, "__wrapped__", None), FunctionType
        ):  # functools.cache, decorators that are objects
            return ["wrapper", type_name(type(value)), self.visit(value.__wrapped__)]
        return self._constant(value)

    def _once(self, value: Any, part: Any) -> str:
        """The number of a part, which is made when all before it are."""
        if id(value) not in self._seen:
            self._seen[id(value)] = len(self._waiting)
            self._waiting.append((value, part))  # and kept, so that no id is used twice
        return f"#{self._seen[id(value)]}"

    def _is_own(self, value: Any) -> bool:
        """Whether it is the project's, or of the package that the step itself is in."""
        module = str(getattr(value, "__module__", ""))
        top = module.partition(".")[0]
        if top == __name__.partition(".")[0]:
            return False
        if isinstance(value, FunctionType):
            file = value.__code__.co_filename
            file = str(value.__globals__.get("__file__", file)) if file.startswith("<") else file
            return _is_project(file) or (top == self._own and not _is_standard(file))
        known = sys.modules.get(module)
        if known is None:  # of a file that was loaded by its path
            return True
        return _is_project_module(known) or (top == self._own and not _is_builtin(known))

    def _library(self, value: Any) -> Any:
        """A thing of an installed package: its name, and the project's function that it is wrapped around."""
        name = [f"{value.__module__}.{value.__qualname__}"]
        if isinstance(value, FunctionType) and hasattr(value, "__wrapped__"):
            name.append(self.visit(value.__wrapped__))
        if isinstance(registry := getattr(value, "registry", None), Mapping):  # of functools.singledispatch
            name += [self.visit(variant) for variant in registry.values()]
        return name

    # --- code -------------------------------------------------------------------------------------------------------

    def _function(self, function: FunctionType) -> Any:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        enclosed = [[name, self._named(cell, name)] for name, cell in cells]
        defaults = [self.visit(function.__defaults__), self.visit(function.__kwdefaults__)]
        used = list(self._used(function.__code__, function.__globals__))
        return ["def", self._code(function.__code__), defaults, enclosed, used]

    def _code(self, code: CodeType) -> Any:
        shape = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        texts = [code.co_code.hex(), code.co_exceptiontable.hex(), list(code.co_names), list(code.co_varnames)]
        return [*shape, *texts, [self._constant(constant) for constant in code.co_consts]]

    def _used(self, code: CodeType, space: dict[str, Any]) -> Iterator[Any]:
        """What the code loads by name, each with what stands for it."""
        instructions = list(dis.get_instructions(code))
        for place, instruction in enumerate(instructions):
            if instruction.opname in _LOADS:
                chain = [instruction.argval]
                for following in instructions[place + 1 :]:
                    if following.opname not in _ATTRIBUTES:
                        break
                    chain.append(following.argval)
                yield self._chain(space, chain)
            elif instruction.opname == "IMPORT_NAME":
                level, names = (before.argval for before in instructions[place - 2 : place])
                yield from self._imported(instruction.argval, level, names or (), space)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._used(constant, space)

    def _chain(self, space: Any, chain: Sequence[str]) -> Any:
        """What ``a.b.c`` is, as far as it leads through modules of the project."""
        name, *rest = chain
        found = _now(space, name)
        if isinstance(found, ModuleType) and rest and _is_project_module(found):
            self.names.append((space, name, found))
            return [name, self._chain(vars(found), rest)]
        return [name, self._named(space, name)]

    def _named(self, space: Any, name: str) -> Any:
        found = _now(space, name)
        self.names.append((space, name, found))
        if type(found) in _CONTAINERS or (self._is_own(type(found)) and hasattr(found, "__dict__")):
            self.changing.append(found)
        return "unknown" if found is _ABSENT else self.visit(found)  # a builtin, or not there yet

    def _imported(self, name: str, level: int, names: Sequence[str], space: Mapping[str, Any]) -> Iterator[Any]:
        module = _project_module("." * level + name, str(space.get("__package__") or ""))
        if module is None:
            return
        if not names or "*" in names:
            yield self.visit(module)
        for part in names:
            if part not in vars(module):
                _project_module(f"{module.__name__}.{part}", "")  # a module of the package, which is then an attribute
            yield self._chain(vars(module), [part])

    def _class(self, kind: type) -> Any:
        annotations = [[name, self._annotation(value)] for name, value in inspect.get_annotations(kind).items()]
        members = [[name, self.visit(value)] for name, value in vars(kind).items() if _is_member(name, value)]
        return ["class", [self.visit(base) for base in kind.__bases__], annotations, members]

    def _module(self, module: ModuleType) -> Any:
        items = [(name, value) for name, value in vars(module).items() if not name.startswith("__")]
        return ["module", [[name, self.visit(value)] for name, value in items]]

    def _annotation(self, value: Any) -> Any:
        return self.visit(value) if isinstance(value, type) else re.sub(r" at 0x[0-9a-f]+", "", str(value))

    # --- values -----------------------------------------------------------------------------------------------------

    def _constant(self, value: Any) -> Any:
        """A value by what it holds; code and objects of the project in it are followed, too."""
        if is_plain(value):
            return ["=", value]
        if isinstance(value, CodeType):
            return self._code(value)
        if type(value) is tuple:
            return ["tuple", *map(self.visit, value)]
        if type(value) in {list, set, frozenset, dict}:
            return self._once(value, self._items)
        if self._is_own(type(value)):
            return self._once(value, self._object)
        if isinstance(value, os.PathLike):
            return ["path", os.fspath(value)]
        if callable(value) and isinstance(name := getattr(value, "__name__", None), str):
            return ["name", str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", name))]
        return self._encoded(value) or self._content(value)

    def _items(self, value: Any) -> Any:
        kind = type(value).__name__
        if isinstance(value, dict):
            return [kind, *([self.visit(key), self.visit(item)] for key, item in value.items())]
        ordered = value if isinstance(value, list) else sorted(value, key=_order)
        return [kind, *map(self.visit, ordered)]

    def _object(self, value: Any) -> Any:
        held = self.visit(vars(value)) if hasattr(value, "__dict__") else self._encoded(value)
        return ["object", self.visit(type(value)), held]

    def _encoded(self, value: Any) -> Any:
        """A value of the standard library, or with fields, as exact JSON; None where there is no such form."""

        def leaf(part: Any, place: str) -> Any:
            if part is value:
                raise MaterializationError(place)
            return self.visit(part)

        try:
            return ["=", Encoder(leaf).encode(value)]
        except (MaterializationError, RecursionError):
            return None

    def _content(self, value: Any) -> Any:
        """Of an object of a library what a store would write; of one that none takes only the type."""
        try:
            return ["content", content_digest(value)]
        except Exception:  # whatever a library's object says when it is asked to be written
            return ["a", type_name(type(value))]


def _order(item: Any) -> tuple[str, str]:
    """The order of a set's items, the same in every process."""
    return type_name(type(item)), str(getattr(item, "__qualname__", None) or repr(item))


def _is_member(name: str, value: Any) -> bool:
    """Whether a part of a class is its author's, not the interpreter's."""
    code = isinstance(value, FunctionType | classmethod | staticmethod | property)
    return code or (name == "__slots__" or not (name.startswith("__") or name == "_abc_impl"))


# --- whose it is ------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _is_project(file: str) -> bool:
    """Whether a file is of the project: neither installed, nor of the standard library or of this package."""
    if file.startswith("<"):
        return not file.startswith("<frozen ")
    if {"site-packages", "dist-packages"} & set(Path(file).parts) or _is_standard(file):
        return False
    inside = Path(file).parts[len(_PACKAGE.parts) :]
    return not (Path(file).is_relative_to(_PACKAGE) and inside[0] in _ROOMS)


@functools.lru_cache(maxsize=1024)
def _is_standard(file: str) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    inside = any(Path(file).is_relative_to(place) for place in places)
    return file.startswith("<frozen ") or (inside and "site-packages" not in Path(file).parts)


def _is_builtin(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names or (file is not None and _is_standard(file))


def _is_project_module(module: ModuleType) -> bool:
    if module.__name__ in sys.builtin_module_names:
        return False
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return module.__name__ == "__main__" if file is None else _is_project(file)


def _project_module(name: str, package: str) -> ModuleType | None:
    """A module of the project by its name, imported as the function that names it would; None for any other."""
    try:
        full = importlib.util.resolve_name(name, package)
        if full not in sys.modules:
            spec = importlib.util.find_spec(full.partition(".")[0])
            if spec is None or not _is_project(spec.origin or next(iter(spec.submodule_search_locations or ()), "<")):
                return None
        module = importlib.import_module(full)
    except Exception:  # it will say so to the function
        return None
    return module if _is_project_module(module) else None
