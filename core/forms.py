"""In which file format a table is stored, where somebody chooses: on the Dataset, or in the rule of its type."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMPRESSIONS", "FORMATS", "LEVELS", "TEXTS", "Form"]

COMPRESSIONS = {
    "parquet": ("zstd", "snappy", "lz4", "none"),
    "arrow": ("zstd", "lz4", "none"),
    "csv": ("none",),
    "jsonl": ("none",),
}
"""The formats of tables, and the compressions that each has."""

FORMATS = tuple(COMPRESSIONS)

TEXTS = ("csv", "jsonl")
"""The formats that have no types, so that a schema stands beside them."""

LEVELS = {"zstd": range(1, 23)}
"""The levels of the compressions that have some: ``zstd:9``."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is chosen. Of ``None`` the materializer chooses itself, as the best for the value.

    A compression without a format holds for the format that the materializer chooses, if that has it. It may have a
    level: ``"zstd:9"``.
    """

    format: str | None = None
    compression: str | None = None

    def problem(self) -> str | None:
        """Why there is no such form; None if there is."""
        if self.format is not None and self.format not in FORMATS:
            return f"No table is stored as {self.format!r}. There are: {', '.join(FORMATS)}."
        if self.compression is None:
            return None
        known = COMPRESSIONS[self.format] if self.format else COMPRESSIONS["parquet"]
        codec, colon, level = self.compression.partition(":")
        if codec not in known:
            return f"{self.format or 'parquet'} has no compression {codec!r}. It has: {', '.join(known)}."
        if not colon:
            return None
        if codec not in LEVELS:
            return f"The compression {codec!r} has no levels; write compression={codec!r}. With levels: zstd."
        if not level.isascii() or not level.isdigit() or int(level) not in LEVELS[codec]:
            levels = LEVELS[codec]
            return f"{codec!r} has no level {level!r}. It has {levels[0]} to {levels[-1]}: '{codec}:9'."
        return None

    def said(self, format: str) -> dict[str, str]:
        """What a spec records of it."""
        return {"compression": self.compression} if self.compression and self.compressed(format) else {}

    def compressed(self, format: str) -> str | None:
        """The compression for a file of this format, without its level; None where none is chosen that it has."""
        codec = (self.compression or "").partition(":")[0]
        return codec if codec in COMPRESSIONS[format] else None

    @property
    def level(self) -> int | None:
        """The level of the compression; None where none is chosen."""
        level = (self.compression or "").partition(":")[2]
        return int(level) if level else None
