"""An artifact type inside a list or dict: what it holds, by its own materializer, and its header.

As an output of its own it needs none of this: the store unwraps it, and its manifest has the header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.assets import Asset
from ..core.datasets import Dataset
from ..core.errors import MaterializationError
from ..core.forms import Form
from ..core.typenames import asset_named, type_name
from .base import LoadMember, SaveMember, Spec
from .files import FileReader, FileWriter

__all__ = ["AssetMaterializer", "check_chosen", "chosen_form"]


def chosen_form(value: Any) -> Form | None:
    """The form that a Dataset chose for what it holds; None of anything else."""
    form = value.form if isinstance(value, Dataset) else Form()
    return form if form != Form() else None


def check_chosen(form: Form | None, files: FileWriter, data: Any) -> None:
    """Raise MaterializationError when a form was chosen for what is no table, and was stored in another one."""
    if form is not None and not files.has_table:
        raise MaterializationError(
            f"A file format or compression ({form.format or form.compression}) was chosen for a "
            f"{type_name(type(data))}, which is no table. Give the Dataset a frame of pandas or polars or a table of "
            "Arrow (for jsonl also a list of dicts that JSON holds exactly), or leave it out."
        )


class AssetMaterializer:
    """A Model, Dataset, Metrics, ... among the members of a container."""

    name: ClassVar[str] = "asset"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Asset, files: FileWriter) -> Spec:
        """Refused: what it holds is a member, which needs :meth:`save_with`."""
        raise MaterializationError(f"a {type_name(type(value))} is saved with what it holds, by save_with")

    def save_with(self, value: Asset, files: FileWriter, save_member: SaveMember) -> Spec:
        """What it holds goes into the folder ``data``."""
        data, header = value.to_parts()
        form = chosen_form(value)
        inner = files.within("data", form=form)
        saved = save_member(data, ".data", inner)
        check_chosen(form, inner, data)
        return {"asset": type_name(type(value)), "header": header, "data": saved}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Asset:
        """Refused, as :meth:`save` is."""
        raise MaterializationError(f"a {spec['asset']} is loaded with what it holds, by load_with")

    def load_with(self, files: FileReader, spec: Mapping[str, Any], load_member: LoadMember) -> Asset:
        """The artifact type around what it holds."""
        return asset_named(spec["asset"]).from_parts(load_member(spec["data"], files.within("data")), spec["header"])

    def describe(self, value: Asset) -> dict[str, Any]:
        """What the artifact type knows of itself."""
        return value.describe()
