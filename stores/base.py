"""An artifact store: Python objects in, committed artifacts out. Back ends supply eight primitives for places."""

from __future__ import annotations

import errno
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote

from ..core.assets import Asset
from ..core.errors import ArtifactNotFound, IntegrityError, InvalidKey, StoreError
from ..core.forms import Form
from ..core.names import MANIFEST, check_key
from ..core.refs import ArtifactRef, FileEntry, Manifest, Producer, artifact_id
from ..core.typenames import asset_named, type_name
from ..materializers.asset import check_chosen, chosen_form
from ..materializers.files import FileReader, FileWriter, digest_bytes
from ..materializers.registry import Saved, load, save
from ..materializers.tagged import decode
from .layout import default_path, run_start
from .listing import Stored
from .manifests import Labels, Staged, content_digest, dumped, manifest_of, parsed

if TYPE_CHECKING:
    from .files import FileRef

__all__ = ["ArtifactStore", "Labels", "Staged"]

_ANY_FORM = Form()
_POLICIES = ("never", "fallback", "always")
_TRIES = 10  # to load what is saved anew again and again
_SAY = {
    errno.ENOSPC: "Make room, then do it again.",
    errno.EDQUOT: "Make room, then do it again.",
    errno.EROFS: "Choose a place that can be written.",
    errno.EACCES: "Let this user write there, or choose another place.",
    errno.EPERM: "Let this user write there, or choose another place.",
    errno.ENOTDIR: "A file is where a folder should be; move it, or choose another place.",
}
"""What to do where a folder of this machine cannot be written."""


class ArtifactStore(ABC):
    """Saves and loads Python objects at paths below one root.

    An artifact is a folder: the files of its content in a sub-folder named for their digest, and a manifest, written
    last. Saving again at a path replaces the manifest; a failed save leaves the old one and its files as they were.
    ``allow_pickle`` is ``never``, ``fallback`` or ``always``, for saving and for loading. With ``deduplicate`` equal
    files are stored once, below ``_objects``; what was saved with and without it is read by both.
    """

    scheme: ClassVar[str]

    def __init__(
        self, name: str = "default", *, allow_pickle: str = "never", durable: bool = True, deduplicate: bool = False
    ) -> None:
        if allow_pickle not in _POLICIES:
            what = f"allow_pickle of the store {name!r} is {allow_pickle!r}"
            raise StoreError(f"{what}; it is one of {', '.join(map(repr, _POLICIES))}.")
        self.name = name
        self.allow_pickle = allow_pickle
        self.durable = durable
        self.deduplicate = deduplicate

    # --- what a back end supplies -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def root_uri(self) -> str:
        """The URI of the root, without a trailing slash."""

    @abstractmethod
    def new_staging(self) -> Path:
        """A new local folder to write an artifact's files into."""

    @abstractmethod
    def discard_staging(self, directory: Path) -> None:
        """Remove a staging folder that will not be published; no error if it is gone."""

    @abstractmethod
    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        """Move the files to a content folder, atomically. Where the same content is already, keep it if it is sound."""

    def has_tree(self, key: str) -> bool:
        """Whether a content folder is still there after it was put; True where it costs a request to ask."""
        return True

    @abstractmethod
    def local_tree(self, key: str, files: tuple[FileEntry, ...]) -> Path:
        """A local folder that holds the files of a content folder. What is missing is left missing."""

    def release_tree(self, directory: Path, *, lent: bool = False) -> None:  # noqa: B027  # most have nothing to do
        """Give back what :meth:`local_tree` gave. ``lent``: a value may go on reading from it. Nothing, by default."""

    @property
    def creates_first(self) -> bool:
        """Whether :meth:`create` costs less than looking first."""
        return False

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A small file; raises ``FileNotFoundError``."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write a small file unless there is one: atomic, and False where another was first."""

    @abstractmethod
    def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
        """Write a small file atomically over whatever is there."""

    @abstractmethod
    def walk(self, prefix: str = "", *, contents: bool = False) -> Iterator[str]:
        """The keys that start with the prefix, in no order; those of content folders only when asked for."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file, or everything below a folder; no error if there is nothing."""

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Every file whose key starts with the prefix, whatever it is: content, work in progress, what is shared."""
        raise self._cannot_collect()

    def collect(self, key: str, before: float) -> bool:
        """Remove a file, or a folder, unless any of it was written at ``before`` or later: then, False.

        That is a time of the store's own clock, as :meth:`stored` has it. A folder that is being put here at this
        moment is either seen, and left, or put anew by whoever puts it.
        """
        raise self._cannot_collect()

    def _cannot_collect(self) -> StoreError:
        return StoreError(
            f"The store {self.name!r} at {self.root_uri} does not say how old its files are, so that nothing of it is "
            f"collected: {type(self).__name__} has no stored() and collect()."
        )

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The store's settings as JSON-able data, without secrets."""

    # --- objects ------------------------------------------------------------------------------------------------------

    def save(self, obj: Any, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> str:
        """Store an object at a path and return its URI. What was there before stays until the new one is committed.

        Raises :class:`~tailrace.MaterializationError` when it cannot be stored exactly; nothing is written then.
        """
        key = self.key(path)
        staged = self.stage(obj)
        name = key.rpartition("/")[2]
        return self.publish(staged, key, Labels(_key_id(self.root_uri, key), name, user_metadata=metadata)).uri

    def load(self, path: str | os.PathLike[str] | ArtifactRef) -> Any:
        """The object at a relative path, an absolute path inside the root, a URI of this store, or a reference.

        Raises :class:`~tailrace.ArtifactNotFound`, and :class:`~tailrace.IntegrityError` before anything is
        deserialized when stored bytes are not those that were committed (or not those that the reference names).
        """
        return self.load_with_manifest(path)[0]

    def load_with_manifest(
        self, path: str | os.PathLike[str] | ArtifactRef, columns: Sequence[Any] | None = None
    ) -> tuple[Any, Manifest]:
        """The object, or these columns of a table, and its manifest, verified as :meth:`load` does."""
        for tries in range(_TRIES):
            files, manifest = self.reader(path)
            lent = False
            try:
                data = load(manifest.materializer, manifest.materializer_version, files, manifest.spec, columns)
                lent = files.lent
                break
            except IntegrityError:  # or somebody has saved at the path since, or deleted what was there
                if tries == _TRIES - 1 or self.manifest(path) == manifest:
                    raise
            finally:
                self.release_tree(files.directory, lent=lent)
        if not manifest.wrapper:
            return data, manifest
        kind = asset_named(manifest.wrapper)
        header = {**manifest.metadata.get("asset", {}), "version": manifest.version}
        return kind.from_parts(data, header if columns is None else kind.narrowed(header, columns)), manifest

    def reader(self, path: str | os.PathLike[str] | ArtifactRef) -> tuple[FileReader, Manifest]:
        """The files of an artifact, each verified when it is read, and its manifest, verified.

        Give ``files.directory`` to :meth:`release_tree` when they are not needed any more.
        """
        key = self.key(path.uri if isinstance(path, ArtifactRef) else path)
        expected = path.manifest_digest if isinstance(path, ArtifactRef) else None
        manifest = self._manifest_at(key, expected)
        if (
            content_digest(manifest.materializer, manifest.materializer_version, manifest.spec, manifest.files)
            != manifest.digest
        ):
            raise IntegrityError(f"The manifest of {self.uri(key)} does not match its own digest. Nothing was loaded.")
        entries = {entry.path: entry for entry in manifest.files}
        directory = self.local_tree(f"{key}/{manifest.content}", manifest.files)
        files = FileReader(directory, entries, allow_pickle=self.allow_pickle, label=self.uri(key))
        return files, manifest

    # --- files --------------------------------------------------------------------------------------------------------

    def put(
        self,
        local: str | os.PathLike[str],
        key: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
    ) -> FileRef:
        """Store a file or folder of this machine at a key, and say what was stored. The same again changes nothing.

        Of a folder, empty folders, links that stay inside it and the executable bit are kept; what was at the key
        before is replaced as a whole. :meth:`load` gives a path to it. Raises :class:`~tailrace.MaterializationError`
        where there is nothing, or a link that leads out; what was there before is intact then.
        """
        from .files import FileRef, stage_path

        place = self.key(key)
        staged = stage_path(self, Path(local))
        labels = Labels(_key_id(self.root_uri, place), place.rpartition("/")[2], user_metadata=metadata)
        ref = self.publish(staged, place, labels)
        size = sum(entry.size for entry in staged.files)
        return FileRef(ref.uri, ref.digest, size, staged.saved.spec["kind"], dict(metadata or {}))

    def get(self, key: str | os.PathLike[str], local: str | os.PathLike[str]) -> Path:
        """Write what was put at a key to this machine: a file to a file, a folder's files into a folder.

        Everything is verified before the first file is put in its place, each at once. Other files that are there stay.
        Raises :class:`~tailrace.ArtifactNotFound`, :class:`~tailrace.IntegrityError`, and
        :class:`~tailrace.StoreError` where something is in the way or a symbolic link leads elsewhere.
        """
        from .files import get

        return get(self, key, local)

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether a committed artifact is at the path."""
        try:
            self.read(f"{self.key(path)}/{MANIFEST}")
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str | os.PathLike[str]) -> None:
        """Delete the artifact at a path and every artifact below it, manifests first. No error if there is none.

        A save at the same path at the same moment either stays whole or fails; in a bucket, which is not asked again,
        its files may be deleted, and loading says so.
        """
        key = self.key(path)
        for found in sorted(self.walk(f"{key}/")):
            if found.endswith(f"/{MANIFEST}"):
                self.remove(found)
        self.remove(key)

    def list_artifacts(self, prefix: str = "") -> list[str]:
        """The paths of all artifacts that start with the prefix: relative to the root, recursive, sorted."""
        paths = (key[: -len(MANIFEST) - 1] for key in self.walk(prefix) if key.endswith(f"/{MANIFEST}"))
        return sorted(path for path in paths if path.startswith(prefix))

    def get_metadata(self, path: str | os.PathLike[str]) -> dict[str, Any] | None:
        """The metadata that was saved with the artifact; None if there was none, or no artifact."""
        try:
            found = self.manifest(path).user_metadata
        except ArtifactNotFound:
            return None
        return None if found is None else decode(dict(found))

    def size(self, path: str | os.PathLike[str]) -> int:
        """Bytes of content at a path: of the artifact there and of all below it; 0 if there is nothing."""
        key = self.key(path)
        below = self.list_artifacts(f"{key}/")
        here = [key] if self.exists(key) else []
        return sum(self.manifest(found).size_bytes for found in [*here, *below])

    def materialize(self, obj: Any, name: str, run_id: str, step_name: str, project_name: str = "default") -> str:
        """Store an object in the default layout, ``{project}/{date}/{run_id}/data/{step}/{name}``; returns its URI.

        The date is that of the run's first artifact or record, in UTC, for every process and host.
        """
        started = run_start(self, project_name, run_id, datetime.now(UTC))
        producer = Producer(project=project_name, pipeline="", step=step_name, output=name, run_id=run_id)
        labels = Labels(artifact_id(project_name, run_id, step_name, name), name, producer=producer)
        return self.publish(self.stage(obj), default_path(project_name, started, run_id, step_name, name), labels).uri

    def validate(self) -> bool:
        """Write, read and delete a probe. True, or :class:`~tailrace.StoreError` saying what failed."""
        key = f"_probe-{os.getpid()}"
        try:
            self.replace(key, b"probe")
            sound = self.read(key) == b"probe"
            self.remove(key)
        except OSError as error:
            raise StoreError(f"The store {self.name!r} at {self.root_uri} cannot be used: {error}") from error
        if not sound:
            raise StoreError(f"The store {self.name!r} at {self.root_uri} does not give back what was written.")
        return True

    # --- in two steps, for several outputs that are committed together ------------------------------------------------

    def stage(self, obj: Any, form: Form = _ANY_FORM) -> Staged:
        """Write an object's files aside, digested, to publish or discard. Nothing is left if this raises.

        ``form`` is for the tables in it; a Dataset that chose one itself has its own.
        """
        begin = time.perf_counter()
        data, wrapper = obj, ""
        header: dict[str, Any] = {}
        described: dict[str, Any] = {}
        if isinstance(obj, Asset):
            data, header = obj.to_parts()
            described = obj.describe()
            wrapper = type_name(type(obj))
        directory = self.new_staging()
        try:
            chosen = chosen_form(obj)
            writer = FileWriter(directory, durable=self.durable, allow_pickle=self.allow_pickle, form=chosen or form)
            saved = save(data, writer)
            check_chosen(chosen, writer, data)
            files = writer.finish()
        except OSError as error:
            self.discard_staging(directory)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise self._unwritable(error, directory.parent) from error
            raise
        except BaseException:
            self.discard_staging(directory)
            raise
        digest = content_digest(saved.materializer, saved.materializer_version, saved.spec, files)
        return Staged(
            directory,
            type_name(type(obj)),
            digest,
            files,
            saved,
            wrapper,
            header,
            described,
            time.perf_counter() - begin,
            writer.digest_seconds,
        )

    def stage_copy(self, files: FileReader, manifest: Manifest) -> Staged:
        """The files of an artifact aside, verified, to publish as another one. Its value is not loaded."""
        begin = time.perf_counter()
        directory = self.new_staging()
        try:
            writer = FileWriter(directory, durable=self.durable)
            for entry in manifest.files:
                shutil.copyfile(files.path(entry.path), writer.path(entry.path))
            if writer.finish() != manifest.files:
                raise IntegrityError(f"The files of {manifest.name!r} changed while they were copied. Run it again.")
        except BaseException:
            self.discard_staging(directory)
            raise
        metadata = dict(manifest.metadata)
        header = {**metadata.pop("asset", {}), "version": manifest.version}
        described, length = metadata.pop("described", {}), metadata.pop("length", None)
        return Staged(
            directory,
            manifest.type,
            manifest.digest,
            manifest.files,
            Saved(manifest.materializer, manifest.materializer_version, dict(manifest.spec), metadata, length),
            manifest.wrapper,
            header,
            described,
            time.perf_counter() - begin,
            writer.digest_seconds,
        )

    def publish(self, staged: Staged, key: str, labels: Labels) -> ArtifactRef:
        """Commit what was staged at a key: the content first, the manifest last. The same again is a no-op."""
        try:
            manifest = manifest_of(staged, labels)
            data = dumped(manifest)
        except BaseException:
            self.discard_staging(staged.directory)
            raise
        self.put_tree(staged.directory, f"{key}/{manifest.content}", staged.files)
        place = f"{key}/{MANIFEST}"
        before = None if self.creates_first else self._read_or_none(place)
        if before is None and self.create(place, data):  # of two at once, both hand over the manifest of the first
            return self._committed(key, manifest, data, staged.saved.length)
        before = before or self._read_or_none(place)  # or it has been deleted since
        with suppress(IntegrityError):  # a damaged one is replaced
            if before and (old := self._parse(key, before)).same_artifact(parsed(data)):
                manifest, data = old, before
        if data is not before:
            self.replace(place, data)
        return self._committed(key, manifest, data, staged.saved.length)

    def _committed(self, key: str, manifest: Manifest, data: bytes, length: int | None) -> ArtifactRef:
        if not self.has_tree(f"{key}/{manifest.content}"):
            self.remove(f"{key}/{MANIFEST}")
            raise StoreError(f"{self.uri(key)} was deleted while it was saved. Save it again, or do not delete it.")
        return self._ref(key, manifest, data, length)

    # --- manifests and places -----------------------------------------------------------------------------------------

    def manifest(self, path: str | os.PathLike[str] | ArtifactRef) -> Manifest:
        """The manifest of an artifact. Raises :class:`~tailrace.ArtifactNotFound` when none is committed there."""
        expected = path.manifest_digest if isinstance(path, ArtifactRef) else None
        return self._manifest_at(self.key(path.uri if isinstance(path, ArtifactRef) else path), expected)

    def ref(self, path: str | os.PathLike[str]) -> ArtifactRef:
        """A reference to the artifact that is committed at a path now."""
        key = self.key(path)
        data = self._read_or_none(f"{key}/{MANIFEST}")
        if data is None:
            raise self._not_found(key)
        manifest = self._parse(key, data)
        return self._ref(key, manifest, data, manifest.metadata.get("length"))

    def key(self, path: str | os.PathLike[str]) -> str:
        """The key of a relative path, an absolute path inside the root, or a URI; refuses anything else by name."""
        text = os.fspath(path)
        if text == self.root_uri or text.startswith(f"{self.root_uri}/"):
            text = unquote(text[len(self.root_uri) + 1 :])
        elif "://" in text:
            raise InvalidKey(f"{text!r} is not in the store {self.name!r}, whose root is {self.root_uri}.")
        else:
            text = self._relative(text)
        if not text.strip("/"):
            raise InvalidKey(f"{os.fspath(path)!r} is the root of the store {self.name!r}; name something below it.")
        return check_key(text)

    def uri(self, key: str) -> str:
        """The URI of a key."""
        return f"{self.root_uri}/{quote(key, safe='/._=-', errors='surrogatepass')}"

    def _relative(self, path: str) -> str:
        return path

    def _read_or_none(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    def _manifest_at(self, key: str, expected: str | None) -> Manifest:
        data = self._read_or_none(f"{key}/{MANIFEST}")
        if data is None:
            raise self._not_found(key)
        if expected is not None and digest_bytes(data) != expected:
            raise IntegrityError(
                f"The manifest of {self.uri(key)} is not the one that was handed over: it was damaged, or another run "
                "saved at the same path. Nothing was loaded. Run the step that made it again."
            )
        return self._parse(key, data)

    def _parse(self, key: str, data: bytes) -> Manifest:
        try:
            return parsed(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"The manifest of {self.uri(key)} cannot be read: {error}") from error

    def _unwritable(self, error: OSError, place: str | os.PathLike[str]) -> StoreError:
        what = f"The store {self.name!r} cannot write below {os.fspath(place)!r}: {error.strerror or error}."
        return StoreError(f"{what} Nothing was committed. {_SAY.get(error.errno or 0, 'Do it again.')}")

    def _not_found(self, key: str) -> ArtifactNotFound:
        return ArtifactNotFound(
            f"No artifact {key!r} is committed in the store {self.name!r} at {self.root_uri}. "
            "list_artifacts() shows what is there."
        )

    def _ref(self, key: str, manifest: Manifest, data: bytes, length: int | None) -> ArtifactRef:
        return ArtifactRef(
            id=manifest.id,
            uri=self.uri(key),
            digest=manifest.digest,
            manifest_digest=digest_bytes(data),
            type=manifest.type,
            name=manifest.name,
            length=length,
            created=manifest.created,
        )


def _key_id(root_uri: str, key: str) -> str:
    return digest_bytes(f"{root_uri}\0{key}".encode("utf-8", "surrogatepass")).rpartition(":")[2][:16]
