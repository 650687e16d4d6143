"""A ``pathlib.Path`` as the file or directory that it names: the content is stored, and comes back as a path to it.

What is returned from a step is the file, not its name; return a ``str`` or a ``PurePath`` for a name. Of a directory,
empty folders, symbolic links that stay inside it, and the executable bit of files are kept, as in git; other modes,
owners and times are not.

Loading gives the verified file where the store holds it, to be read and not written to. Where that could not be exact
(a name that is not safe in every store, an empty folder, a link, an executable file) it gives a copy in a temporary
folder that lasts as long as the process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ..core.errors import MaterializationError
from ..core.names import segment
from .base import Spec, Unsavable
from .files import FileReader, FileWriter

__all__ = ["PathMaterializer", "inside", "stored_path"]


class PathMaterializer:
    """Files and directories."""

    name: ClassVar[str] = "path"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Path, files: FileWriter) -> Spec:
        """Copy the content. Raises Unsavable for a path to nothing, or to what is neither file nor directory."""
        return self.save_as(value, _text(value.resolve().name or "content"), files)

    def save_as(self, value: Path, name: str, files: FileWriter) -> Spec:
        """As :meth:`save`, under another name than its own."""
        source = value.resolve()
        if source.is_file():
            shutil.copyfile(source, files.path(segment(name)))
            return _spec("file", name, {"executable": [name] if os.access(source, os.X_OK) else []}, [name])
        if not source.is_dir():
            raise Unsavable(
                f"there is no file or directory at {str(value)!r}. A Path is stored as the content it names; "
                "return a str or a PurePath for a name alone"
            )
        return self._save_directory(source, name, files.within(segment(name)))

    def _save_directory(self, source: Path, name: str, files: FileWriter) -> Spec:
        found: dict[str, Any] = {"files": [], "folders": [], "links": {}, "executable": []}
        for folder, folders, names in os.walk(source):
            place = Path(folder)
            if place != source and not folders and not names:
                found["folders"].append(_text(place.relative_to(source).as_posix()))
            for inner in sorted([*folders, *names]):
                self._note(source, place / inner, found)
        for path in found["files"]:
            shutil.copyfile(source / path, files.path(stored_path(path)))
        return _spec("directory", name, found, sorted(found["files"]))

    def _note(self, source: Path, item: Path, found: dict[str, Any]) -> None:
        path = _text(item.relative_to(source).as_posix())
        if item.is_symlink():
            target = os.readlink(item)
            if os.path.isabs(target) or not item.resolve().is_relative_to(source):
                raise Unsavable(f"its link {path!r} leads out of the directory, to {target!r}; copy the file instead")
            found["links"][path] = _text(target)
        elif item.is_file():
            found["files"].append(path)
            if os.access(item, os.X_OK):
                found["executable"].append(path)
        elif not item.is_dir():
            raise Unsavable(f"its {path!r} is neither a file nor a directory")

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Path:
        """The verified path."""
        stored = segment(spec["name"])
        if "exact" in spec:
            return files.path(stored)
        target = Path(_scratch()) / inside(spec["name"])
        if spec["kind"] == "file":
            _copy(files.path(stored), target, executable=bool(spec.get("executable")))
        else:
            self._rebuild(files.within(stored), spec, target)
        return target

    def _rebuild(self, files: FileReader, spec: Mapping[str, Any], target: Path) -> None:
        """Links last, so that nothing is written through one, and looked at again when all of them stand."""
        target.mkdir()
        for folder in spec.get("folders", ()):
            (target / inside(folder)).mkdir(parents=True)
        for path in spec["files"]:
            _copy(files.path(stored_path(path)), target / inside(path), executable=path in spec.get("executable", ()))
        root = target.resolve()
        links = {root / inside(path): goal for path, goal in spec.get("links", {}).items()}
        for link, goal in links.items():
            if link.parent.resolve() != link.parent or os.path.isabs(goal):
                raise _leaves(link, goal)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(goal)
        for link, goal in links.items():
            if not link.resolve().is_relative_to(root):
                raise _leaves(link, goal)

    def describe(self, value: Path) -> dict[str, Any]:
        """The name; how many files and bytes are in the manifest."""
        return {"name": value.resolve().name}


def _spec(kind: str, name: str, found: Mapping[str, Any], paths: list[str]) -> Spec:
    """With ``exact`` when the stored files are the whole truth, so that they can be handed out where they are."""
    more: dict[str, Any] = {key: sorted(found[key]) for key in ("folders", "executable") if found.get(key)}
    if found.get("links"):
        more["links"] = dict(sorted(found["links"].items()))
    plain = [name, *paths] == [segment(name), *map(stored_path, paths)] and not more and paths
    if plain:
        return {"kind": kind, "name": name, "exact": True}
    return {"kind": kind, "name": name, **({"files": paths} if kind == "directory" else {}), **more}


def _leaves(link: Path, goal: str) -> MaterializationError:
    return MaterializationError(f"the stored link {link.name!r} leads out of its directory, to {goal!r}: refused")


def _text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Unsavable(f"the file name {name!r} is not valid text; rename it") from error
    return name


def stored_path(path: str) -> str:
    """Where a file of a directory is stored, by its path in it: each name is made safe."""
    return "/".join(map(segment, path.split("/")))


def inside(path: str) -> PurePosixPath:
    """A stored relative path, refused if it leads anywhere but down."""
    parts = path.split("/")
    if not path or "\0" in path or {"", ".", ".."} & set(parts):
        raise MaterializationError(f"the stored path {path!r} does not stay inside its directory: refused")
    return PurePosixPath(*parts)


def _copy(source: Path, target: Path, *, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if executable:
        target.chmod(0o755)


def _scratch() -> str:
    folder = tempfile.mkdtemp(prefix="tailrace-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
