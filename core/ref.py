"""A lazy input: what a parameter that is annotated ``Ref[T]`` receives in place of the loaded value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

from .asset import Asset, kind_of
from .errors import ArtifactNotFound, MaterializationError
from .refs import ArtifactRef, Manifest

__all__ = ["Ref", "Source", "handles"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_UNLOADED = object()


class Source(Protocol):
    """Where a :class:`Ref` gets what it is asked for. The runtime supplies it: nothing here reads a file."""

    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        ...

    def path(self, file: str) -> Path:
        """A local, verified file of the artifact; of all its files their folder, for ``""``."""
        ...

    def load(self, columns: Sequence[Any] | None) -> Any:
        """The value, or these columns of it, verified."""
        ...

    def close(self) -> None:
        """Give back what :meth:`path` has brought here."""
        ...


class Ref(Generic[T_co]):
    """A handle on an artifact. Nothing but its reference is read before something is asked for.

    What is loaded is held until :meth:`release`, or until the step that received the handle ends. A step that returns
    it stores the artifact again, as it was.
    """

    def __init__(self, ref: ArtifactRef, source: Source) -> None:
        self.ref = ref
        self.source = source
        self._manifest: Manifest | None = None
        self._value: Any = _UNLOADED

    @staticmethod
    def of(value: T, name: str = "") -> Ref[T]:
        """A handle on a value in memory, to call a step by hand. It has no files and no metadata.

        In a ``@pipeline`` function a handle on an output stands for the output.
        """
        return Ref(ArtifactRef("", "", "", "", kind_of(value), name), _Held(value))

    @property
    def uri(self) -> str:
        """Where the artifact is."""
        return self.ref.uri

    @property
    def digest(self) -> str:
        """The digest of its content: equal for equal bytes."""
        return self.ref.digest

    @property
    def type(self) -> str:
        """``"Dataset"``, ``"pandas.DataFrame"``, ...: what the step returned."""
        return self.ref.type

    @property
    def name(self) -> str:
        """The artifact's name."""
        return self.ref.name

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the manifest says of the value: schema, rows, nulls, shape, ... A small file is read for it, once."""
        return self._read_manifest().metadata

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the artifact's files, sorted."""
        return tuple(entry.path for entry in self._read_manifest().files)

    @property
    def path(self) -> Path:
        """The artifact's file, or the folder of its files where there are several: local, verified, not to be changed.

        On a local store they are in place, of any other a temporary copy. Every call reads the files to verify them.
        """
        files = self.files
        return self.source.path(files[0] if len(files) == 1 else "")

    def open(self, file: str | None = None, mode: str = "rb") -> IO[Any]:
        """Open one of the files to read it, verified; the only one unless it is named. Text is UTF-8.

        Raises :class:`~tailrace.ArtifactNotFound` for a file that there is not, or when several wait to be named.
        """
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"The mode {mode!r} cannot be used: an artifact is read, by 'rb' or 'r'.")
        known = self.files
        chosen = known[0] if file is None and len(known) == 1 else file
        if chosen is None or chosen not in known:
            asked = "which of its files to open must be named" if file is None else f"it has no file {file!r}"
            raise ArtifactNotFound(f"Of the artifact {self.name!r} {asked}. It has: {', '.join(known) or 'none'}.")
        return self.source.path(chosen).open(mode, encoding=None if "b" in mode else "utf-8")

    def load(self, columns: Sequence[Any] | None = None) -> T_co:
        """The value, verified, as the annotation says; a second call gives the same object.

        With ``columns``, those columns of a table in this order, and of the file no others are read: like the whole
        one's, with its index, and made anew by every call. Raises :class:`~tailrace.MaterializationError` for
        columns that there are not, and for a value without columns.
        """
        if columns is not None:
            return self.source.load(_checked(columns))  # type: ignore[no-any-return]  # a T, of fewer columns
        if self._value is _UNLOADED:
            self._value = self.source.load(None)
        return self._value  # type: ignore[no-any-return]  # what is stored is a T, or planning has refused it

    def release(self) -> None:
        """Let the loaded value go; the next :meth:`load` reads it again. Nothing happens where none is held."""
        self._value = _UNLOADED

    def close(self) -> None:
        """Release the value, and what was copied for :attr:`path`: done for you once the step's outputs are stored."""
        self.release()
        self.source.close()

    def _read_manifest(self) -> Manifest:
        if self._manifest is None:
            self._manifest = self.source.manifest()
        return self._manifest

    def __repr__(self) -> str:
        return f"Ref(name={self.name!r}, type={self.type!r}, uri={self.uri!r})"


def handles(argument: Any) -> Iterator[Ref[Any]]:
    """The handles that an argument is or, being a list of them, holds."""
    if isinstance(argument, Ref):
        yield argument
    elif type(argument) is list and argument and isinstance(argument[0], Ref | list):
        for item in argument:
            yield from handles(item)


def _checked(columns: Sequence[Any]) -> list[Any]:
    if isinstance(columns, str):
        raise MaterializationError(f"The columns are {columns!r}; give a list: columns=[{columns!r}].")
    named = list(columns)
    twice = next((name for place, name in enumerate(named) if name in named[:place]), None)
    if twice is not None:
        raise MaterializationError(f"The column {twice!r} is asked for twice; name each once.")
    return named


class _Held:
    """A value in memory."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def manifest(self) -> Manifest:
        raise ArtifactNotFound("This is a handle on a value in memory, which has no files and no metadata; load() it.")

    def path(self, file: str) -> Path:
        return Path(self.manifest().content, file)

    def load(self, columns: Sequence[Any] | None) -> Any:
        return self._value if columns is None else _select(self._value, columns)

    def close(self) -> None:
        """There is nothing to give back."""


def _select(value: Any, columns: Sequence[Any]) -> Any:
    if isinstance(value, Asset):
        data, header = value.to_parts()
        return value.from_parts(_select(data, columns), value.narrowed(header, columns))
    try:
        if hasattr(value, "iloc") and hasattr(value, "columns"):  # pandas
            return value[list(columns)]
        if hasattr(value, "select") and hasattr(value, "schema"):  # polars, Arrow
            return value.select(list(columns))
    except Exception as error:  # each library has its own
        raise MaterializationError(f"The columns {columns!r} cannot be taken: {error}") from error
    raise MaterializationError(f"A {kind_of(value)} has no columns to choose from; load() all of it.")
