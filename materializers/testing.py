"""A battery that proves a materializer: third parties run it on values of their own types.

from tailrace.materializers.testing import check_round_trip

def test_a_frame_comes_back_as_it_was():
    check_round_trip(MyFrame(...))
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import IntegrityError, MaterializationError, PickleNotAllowed
from ..core.refs import FileEntry
from .base import Materializer
from .files import FileReader, FileWriter
from .identical import difference
from .registry import MaterializerRegistry, Saved, default_registry
from .tagged import dumps, is_plain

__all__ = ["check_refused", "check_round_trip", "restored"]


def check_round_trip(
    value: Any,
    materializer: Materializer | None = None,
    equal: Callable[[Any, Any], bool] | None = None,
    *,
    allow_pickle: str = "never",
    deterministic: bool = True,
) -> Any:
    """Save and load a value and check the whole contract; returns what was loaded.

    The value comes back the same (by ``equal``, or in every way that :func:`~.identical.difference` sees); its spec is
    plain JSON; saving it again, and saving what was loaded, gives the same bytes and spec; a file with one changed byte
    raises IntegrityError instead of being opened; a format that executes code is refused both ways under ``never``.
    ``materializer`` is registered for the value's type, in a registry of its own; otherwise the default registry is
    asked. Raises AssertionError saying what does not hold.
    """
    registry = default_registry if materializer is None else _registry_with(type(value), materializer)
    with tempfile.TemporaryDirectory() as folder:
        saved, entries = _save(registry, value, Path(folder, "first"), allow_pickle)
        _hold(is_plain(saved.spec, tags=True), f"The spec is not plain JSON: {saved.spec!r}")
        _hold(is_plain(saved.metadata), f"The metadata is not plain JSON: {saved.metadata!r}")
        loaded = _load(registry, saved, Path(folder, "first"), entries, allow_pickle)
        _check_same(value, loaded, equal)
        if deterministic:
            for again, name in ((value, "second"), (loaded, "third")):
                _check_same_bytes(saved, entries, *_save(registry, again, Path(folder, name), allow_pickle))
        _check_damage(registry, saved, Path(folder, "first"), entries, allow_pickle)
        if registry.by_name(saved.materializer).executes_code:
            _check_policy(registry, value, saved, Path(folder), entries)
    return loaded


def check_refused(value: Any, *mentions: str, allow_pickle: str = "never") -> Exception:
    """Check that a value is refused in words that mention all of these, and that no file stays; returns the error."""
    with tempfile.TemporaryDirectory() as folder:
        writer = FileWriter(Path(folder), allow_pickle=allow_pickle)
        try:
            default_registry.save(value, writer)
        except MaterializationError as error:
            left = [entry.path for entry in writer.finish()]
            _hold(not left, f"It was refused, and these files stay: {left}")
            missing = [text for text in mentions if text not in str(error)]
            _hold(not missing, f"The message does not mention {missing}: {error}")
            return error
    raise AssertionError(f"It was saved: {value!r}")


def restored(value: Any, *, allow_pickle: str = "never") -> Any:
    """The value, saved and loaded by the default registry."""
    with tempfile.TemporaryDirectory() as folder:
        saved, entries = _save(default_registry, value, Path(folder, "files"), allow_pickle)
        return _load(default_registry, saved, Path(folder, "files"), entries, allow_pickle)


def _hold(what: bool, message: str) -> None:
    """An assertion that stands under ``python -O`` too."""
    if not what:
        raise AssertionError(message)


def _registry_with(kind: type, materializer: Materializer) -> MaterializerRegistry:
    registry = MaterializerRegistry(entry_points=False)
    registry.register(kind, materializer, replace=True)
    return registry


Entries = Mapping[str, FileEntry]


def _save(registry: MaterializerRegistry, value: Any, folder: Path, allow_pickle: str) -> tuple[Saved, Entries]:
    folder.mkdir()
    writer = FileWriter(folder, allow_pickle=allow_pickle)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*loading it executes code", category=UserWarning)
        saved = registry.save(value, writer)
    return saved, {entry.path: entry for entry in writer.finish()}


def _load(registry: MaterializerRegistry, saved: Saved, folder: Path, entries: Entries, allow_pickle: str) -> Any:
    reader = FileReader(folder, entries, allow_pickle=allow_pickle)
    return registry.load(saved.materializer, saved.materializer_version, reader, saved.spec)


def _check_same(value: Any, loaded: Any, equal: Callable[[Any, Any], bool] | None) -> None:
    if equal is not None:
        _hold(equal(value, loaded), f"{value!r} came back as {loaded!r}")
        return
    found = difference(value, loaded)
    _hold(found is None, f"It came back changed: {found}")


def _check_same_bytes(saved: Saved, entries: Entries, again: Saved, others: Entries) -> None:
    same = dumps(again.spec) == dumps(saved.spec)
    _hold(same, f"Saved twice, the specs differ: {saved.spec} and {again.spec}")
    differing = sorted(name for name in {*entries, *others} if entries.get(name) != others.get(name))
    _hold(not differing, f"Saved twice, these files differ: {differing}")


def _check_damage(
    registry: MaterializerRegistry, saved: Saved, folder: Path, entries: Entries, allow_pickle: str
) -> None:
    for name, entry in entries.items():
        if not entry.size:
            continue
        file = folder / name
        sound = file.read_bytes()
        file.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
        try:
            _load(registry, saved, folder, entries, allow_pickle)
        except IntegrityError:
            file.write_bytes(sound)
        else:
            raise AssertionError(f"{name} was damaged, and the value was loaded.")


def _check_policy(registry: MaterializerRegistry, value: Any, saved: Saved, folder: Path, entries: Entries) -> None:
    for act in (
        lambda: _save(registry, value, folder / "refused", "never"),
        lambda: _load(registry, saved, folder / "first", entries, "never"),
    ):
        try:
            act()
        except PickleNotAllowed:
            continue
        raise AssertionError(f"{saved.materializer} executes code, and allow_pickle='never' let it.")
