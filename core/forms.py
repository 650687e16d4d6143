"""In which file format a table is stored, where somebody chooses: on the Dataset, or in the rule of its type."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMPRESSIONS", "FORMATS", "Form"]

COMPRESSIONS = {"parquet": ("zstd", "snappy", "lz4", "none"), "arrow": ("zstd", "lz4", "none"), "csv": ("none",)}
"""The formats of tables, and the compressions that each has."""

FORMATS = tuple(COMPRESSIONS)


@dataclass(frozen=True, slots=True)
class Form:
    """What is chosen. Of ``None`` the materializer chooses itself, as the best for the value.

    A compression without a format holds for the format that the materializer chooses, if that has it.
    """

    format: str | None = None
    compression: str | None = None

    def problem(self) -> str | None:
        """Why there is no such form; None if there is."""
        if self.format is not None and self.format not in FORMATS:
            return f"No table is stored as {self.format!r}. There are: {', '.join(FORMATS)}."
        known = COMPRESSIONS[self.format] if self.format else COMPRESSIONS["parquet"]
        if self.compression is not None and self.compression not in known:
            return f"{self.format or 'parquet'} has no compression {self.compression!r}. It has: {', '.join(known)}."
        return None

    def said(self, format: str) -> dict[str, str]:
        """What a spec records of it."""
        compression = self.compressed(format)
        return {"compression": compression} if compression else {}

    def compressed(self, format: str) -> str | None:
        """The compression for a file of this format; None where none is chosen that it has."""
        return self.compression if self.compression in COMPRESSIONS[format] else None
