"""Files and folders, put into a store as they are and got out again. What is put is an artifact like any other."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import IntegrityError, StoreError
from ..core.names import segment
from ..core.typenames import type_name
from ..materializers.files import FileWriter, digest_file
from ..materializers.paths import PathMaterializer, inside, stored_path
from ..materializers.registry import Saved
from .manifests import Staged, content_digest

if TYPE_CHECKING:
    from ..core.refs import FileEntry, Manifest
    from .base import ArtifactStore

__all__ = ["FileRef", "get", "stage_path"]

_NAME = "content"  # what is put is stored under one name, so that its digest says nothing of where it came from


@dataclass(frozen=True, slots=True)
class FileRef:
    """What :meth:`~tailrace.ArtifactStore.put` stored: where, its digest, and how many bytes its files have.

    ``kind`` is ``file`` or ``directory``. The digest is that of the content (of a directory: of the sorted tree with
    its names), the same wherever it came from and wherever it is put; ``metadata`` is what was put with it.
    """

    uri: str
    digest: str
    size_bytes: int
    kind: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def stage_path(store: ArtifactStore, source: Path) -> Staged:
    """Copy a file or folder aside, digested, to publish or discard. Nothing is left if this raises."""
    begin = time.perf_counter()
    directory = store.new_staging()
    made = PathMaterializer()
    try:
        writer = FileWriter(directory, durable=store.durable)
        spec = made.save_as(source, _NAME, writer)
        files = writer.finish()
    except BaseException:
        store.discard_staging(directory)
        raise
    kind = type_name(type(source))
    saved = Saved(made.name, made.version, spec, {"type": kind}, None)
    digest = content_digest(made.name, made.version, spec, files)
    return Staged(directory, kind, digest, files, saved, "", {}, {}, time.perf_counter() - begin, writer.digest_seconds)


def get(store: ArtifactStore, path: str | os.PathLike[str], local: str | os.PathLike[str]) -> Path:
    """Write the file or folder at a path to a place of this machine: see :meth:`~tailrace.ArtifactStore.get`."""
    files, manifest = store.reader(path)
    try:
        tree = _Tree.of(manifest, store.uri(store.key(path)))
        target = Path(os.path.abspath(local))
        tree.check(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target if target.is_dir() else target.parent  # on the same file system, so that it can be renamed
        with tempfile.TemporaryDirectory(dir=beside, prefix=".tailrace-") as aside:
            tree.copy(files.directory, Path(aside, _NAME))
            tree.check(target)
            tree.move(Path(aside, _NAME), target)
    finally:
        store.release_tree(files.directory)
    return Path(local)


@dataclass(frozen=True, slots=True)
class _Tree:
    """What there is to write, by paths below the target (``""`` for a single file)."""

    uri: str
    kind: str
    files: Mapping[str, FileEntry]
    folders: tuple[str, ...]
    links: Mapping[str, str]
    executable: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest, uri: str) -> _Tree:
        if manifest.materializer != PathMaterializer.name:
            raise StoreError(
                f"{uri} is a {manifest.type}, not a file or folder that was put. Load it, or copy the files in which "
                "it is kept: tailrace artifacts get."
            )
        spec, name = manifest.spec, segment(manifest.spec["name"])
        entries = {entry.path: entry for entry in manifest.files}
        if spec["kind"] == "file":
            files = {"": entries[name]}
        elif "exact" in spec:
            files = {path.removeprefix(f"{name}/"): entry for path, entry in entries.items()}
        else:
            files = {path: entries[f"{name}/{stored_path(path)}"] for path in spec["files"]}
        executable = {"" if spec["kind"] == "file" else path for path in spec.get("executable", ())}
        tree = cls(
            uri, spec["kind"], files, tuple(spec.get("folders", ())), spec.get("links", {}), frozenset(executable)
        )
        for path in (*tree.files, *tree.folders, *tree.links):
            if path or tree.kind != "file":
                inside(path)
        return tree

    def check(self, target: Path) -> None:
        """Refuse a target in which something is in the way, or leads elsewhere; nothing has been written yet."""
        if self.kind == "file":
            if target.is_dir():
                raise StoreError(f"{target} is a folder, and {self.uri} is a file. Name the file to write.")
            return
        if target.exists() and not target.is_dir():
            raise StoreError(f"{target} is a file, and {self.uri} is a folder. Name a folder to write to.")
        root = target.resolve()
        for path in (*self.files, *self.folders, *self.links):
            place = root / path
            if place.parent.resolve() != place.parent:
                raise StoreError(f"{place.parent} is reached through a symbolic link, which is not followed.")
            for folder in (place, *place.parents) if path in self.folders else place.parents:
                if not os.path.lexists(folder):
                    continue
                if folder.is_dir() and not folder.is_symlink():  # asked after: another may just have made it
                    break
                raise StoreError(f"{folder} is in the way: {self.uri} has a folder there.")
            if path not in self.folders and place.is_dir() and not place.is_symlink():
                raise StoreError(f"{place} is in the way: {self.uri} has a file there.")

    def copy(self, source: Path, target: Path) -> None:
        """All of it to a new place, each file verified there. Links last, so that nothing is written through one."""
        if self.kind == "directory":
            target.mkdir()
        for path, entry in self.files.items():
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source / entry.path, place)
            except FileNotFoundError as error:
                raise self._damaged(entry, "missing") from error
            if digest_file(place) != (entry.size, entry.digest):
                raise self._damaged(entry, "damaged: its digest differs from the manifest's")
            if path in self.executable:
                place.chmod(0o755)
        for path in self.folders:
            (target / path).mkdir(parents=True, exist_ok=True)
        root = target.resolve()
        links = {root / path: goal for path, goal in self.links.items()}
        for link, goal in links.items():
            if os.path.isabs(goal) or link.parent.resolve() != link.parent:
                raise self._leaves(link, goal)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(goal)
        for link, goal in links.items():
            if not link.resolve().is_relative_to(root):
                raise self._leaves(link, goal)

    def move(self, source: Path, target: Path) -> None:
        """Put each file and link in its place at once. What else is there stays."""
        if self.kind == "directory":
            target.mkdir(exist_ok=True)
        for path in self.folders:
            (target / path).mkdir(parents=True, exist_ok=True)
        for path in (*self.files, *self.links):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / path, target / path)

    def _leaves(self, link: Path, goal: str) -> StoreError:
        return StoreError(f"The link {link.name!r} of {self.uri} leads out of its folder, to {goal!r}: refused.")

    def _damaged(self, entry: FileEntry, what: str) -> IntegrityError:
        return IntegrityError(
            f"The file {entry.path!r} of the artifact {self.uri} is {what}. Nothing was written. Restore it from a "
            "backup, or put it again."
        )
