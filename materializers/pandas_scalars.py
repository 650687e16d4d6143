"""pandas' scalars as tagged JSON: Timestamp, Timedelta, Period, Interval, NaT and NA, as values, cells and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import MaterializationError
from .tagged import Decoder, Encoder, tag

__all__ = ["encode_freq", "encode_period", "encode_scalar", "make"]


def encode_freq(freq: Any) -> str:
    """The name of a frequency. Raises MaterializationError where the name forgets something, such as holidays."""
    name: str = freq.freqstr
    try:
        same = pd.tseries.frequencies.to_offset(name) == freq
    except ValueError:  # a description, as of DateOffset, which pandas does not read
        same = False
    if not same:
        raise MaterializationError(f"the frequency {freq!r} is more than its name {name!r} says; set freq to None")
    return name


def encode_period(dtype: Any) -> str:
    """The name of a period dtype's frequency, which is another one than that of the same offset."""
    name: str = dtype.name.removeprefix("period[").removesuffix("]")
    if pd.PeriodDtype(name) != dtype:
        raise MaterializationError(f"the period {dtype!r} is more than its name {name!r} says")
    return name


def encode_scalar(encoder: Encoder, value: Any) -> Any:
    """The node of a scalar."""
    if value is pd.NaT or value is pd.NA:
        return tag("pandas", str(value), kind="missing")
    if type(value) is pd.Timestamp:
        more = {} if value.tzinfo is None else {"zone": encoder.encode(value.tzinfo)}
        if value.fold and value.tzinfo is None:
            more["fold"] = 1
        return tag("pandas", value.to_datetime64().view("i8").item(), kind="Timestamp", unit=value.unit, **more)
    if type(value) is pd.Timedelta:
        return tag("pandas", value.to_timedelta64().view("i8").item(), kind="Timedelta", unit=value.unit)
    if type(value) is pd.Period:
        return tag("pandas", value.ordinal, kind="Period", freq=encode_period(pd.PeriodIndex([value]).dtype))
    if type(value) is pd.Interval:
        return tag("pandas", encoder.items((value.left, value.right)), kind="Interval", closed=value.closed)
    raise encoder.refuse(value, "a sub-class of a pandas scalar")


def make(decoder: Decoder, node: Any) -> Any:
    """The scalar of a node."""
    kind = node["kind"]
    if kind == "missing":
        return pd.NaT if node["v"] == "NaT" else pd.NA
    if kind == "Timestamp":
        moment = pd.Timestamp(np.datetime64(node["v"], node["unit"]))
        if "zone" in node:
            return moment.tz_localize("UTC").tz_convert(decoder.decode(node["zone"]))
        return moment.replace(fold=1) if node.get("fold") else moment
    if kind == "Timedelta":
        return pd.Timedelta(np.timedelta64(node["v"], node["unit"]))
    if kind == "Period":
        return pd.Period(ordinal=node["v"], freq=node["freq"])
    left, right = decoder.items(node)
    return pd.Interval(left, right, closed=node["closed"])
