"""Values of the standard library's types as tagged JSON, each with its way there and back.

Types are found by name, so that ``decimal``, ``uuid``, ``zoneinfo`` and the like are imported when a value of theirs
arrives.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from .tagged import TAG, Attribute, Decoder, Encoder, Handler, Maker, tag

if TYPE_CHECKING:
    import datetime as dt
    import decimal
    import fractions
    import pathlib
    import uuid
    import zoneinfo

__all__ = ["ENCODERS", "MAKERS"]


def _moment(encoder: Encoder, value: dt.datetime | dt.time) -> Any:
    more: dict[str, Any] = {} if value.tzinfo is None else {"zone": encoder.encode(value.tzinfo)}
    if value.fold:
        more["fold"] = 1
    return tag(type(value).__name__, value.replace(tzinfo=None, fold=0).isoformat(), **more)


def _make_moment(decoder: Decoder, node: Any) -> Any:
    import datetime as dt

    cls = dt.datetime if node[TAG] == "datetime" else dt.time
    return cls.fromisoformat(node["v"]).replace(tzinfo=decoder.decode(node.get("zone")), fold=node.get("fold", 0))


def _date(encoder: Encoder, value: dt.date) -> Any:
    return tag("date", value.isoformat())


def _make_date(decoder: Decoder, node: Any) -> Any:
    import datetime as dt

    return dt.date.fromisoformat(node["v"])


def _timedelta(encoder: Encoder, value: dt.timedelta) -> Any:
    return tag("timedelta", [value.days, value.seconds, value.microseconds])


def _make_timedelta(decoder: Decoder, node: Any) -> Any:
    import datetime as dt

    return dt.timedelta(*node["v"])


def _timezone(encoder: Encoder, value: Any) -> Any:
    return tag("timezone", encoder.items(value.__getinitargs__()))


def _make_timezone(decoder: Decoder, node: Any) -> Any:
    import datetime as dt

    return dt.timezone(*decoder.items(node))


def _zoneinfo(encoder: Encoder, value: zoneinfo.ZoneInfo) -> Any:
    import pickle

    try:
        reduced: Any = value.__reduce__()
    except pickle.PicklingError as error:
        raise encoder.refuse(value, "which was read from a file and cannot be found by a key again") from error
    key, shared = reduced[1]
    return tag("zoneinfo", key, **({} if shared else {"shared": False}))


def _make_zoneinfo(decoder: Decoder, node: Any) -> Any:
    import zoneinfo

    return zoneinfo.ZoneInfo(node["v"]) if node.get("shared", True) else zoneinfo.ZoneInfo.no_cache(node["v"])


def _decimal(encoder: Encoder, value: decimal.Decimal) -> Any:
    return tag("decimal", str(value))


def _make_decimal(decoder: Decoder, node: Any) -> Any:
    import decimal

    return decimal.Decimal(node["v"])


def _fraction(encoder: Encoder, value: fractions.Fraction) -> Any:
    return tag("fraction", encoder.items((value.numerator, value.denominator)))


def _make_fraction(decoder: Decoder, node: Any) -> Any:
    import fractions

    return fractions.Fraction(*decoder.items(node))


def _uuid(encoder: Encoder, value: uuid.UUID) -> Any:
    safe = value.is_safe.value
    return tag("uuid", str(value), **({} if safe is None else {"safe": safe}))


def _make_uuid(decoder: Decoder, node: Any) -> Any:
    import uuid

    return uuid.UUID(node["v"], is_safe=uuid.SafeUUID(node.get("safe")))


def _purepath(encoder: Encoder, value: pathlib.PurePath) -> Any:
    return tag("purepath", encoder.encode(str(value)), flavour=type(value).__name__)


def _make_purepath(decoder: Decoder, node: Any) -> Any:
    import pathlib

    cls = pathlib.PurePosixPath if node["flavour"] == "PurePosixPath" else pathlib.PureWindowsPath
    return cls(decoder.decode(node["v"]))


def _mapping(encoder: Encoder, value: Any) -> Any:
    if vars(value):
        raise encoder.refuse(value, f"with attributes of its own ({', '.join(vars(value))})")
    return tag(type(value).__name__, encoder.pairs(value))


def _ordered(encoder: Encoder, value: collections.OrderedDict[Any, Any]) -> Any:
    """With its attributes, of which PyTorch's state dicts have one."""
    own = vars(value)
    attributes = encoder.members((Attribute(name), item) for name, item in own.items())
    more = {"attributes": dict(zip(own, attributes, strict=True))} if own else {}
    return tag("OrderedDict", encoder.pairs(value), **more)


def _make_ordered(decoder: Decoder, node: Any) -> Any:
    value = collections.OrderedDict(decoder.items(node))
    vars(value).update({name: decoder.decode(item) for name, item in node.get("attributes", {}).items()})
    return value


def _make_counter(decoder: Decoder, node: Any) -> Any:
    return collections.Counter(dict(decoder.items(node)))


_FACTORIES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(list, dict, set, tuple, int, float, complex, str, bytes, bool, frozenset),
        *(collections.OrderedDict, collections.Counter, collections.defaultdict, collections.deque),
    )
}


def _defaultdict(encoder: Encoder, value: collections.defaultdict[Any, Any]) -> Any:
    factory: Any = value.default_factory
    name = getattr(factory, "__name__", "")
    if factory is not None and _FACTORIES.get(name) is not factory:
        raise encoder.refuse(value, f"whose default_factory {factory!r} is code; return dict(...) of it")
    return tag("defaultdict", encoder.pairs(value), factory=name)


def _make_defaultdict(decoder: Decoder, node: Any) -> Any:
    factory: Any = _FACTORIES[node["factory"]] if node["factory"] else None
    return collections.defaultdict(factory, decoder.items(node))


def _deque(encoder: Encoder, value: collections.deque[Any]) -> Any:
    return tag("deque", encoder.items(value), maxlen=value.maxlen)


def _make_deque(decoder: Decoder, node: Any) -> Any:
    return collections.deque(decoder.items(node), node["maxlen"])


ENCODERS: dict[str, Handler] = {
    "datetime.datetime": _moment,
    "datetime.time": _moment,
    "datetime.date": _date,
    "datetime.timedelta": _timedelta,
    "datetime.timezone": _timezone,
    "zoneinfo.ZoneInfo": _zoneinfo,
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _fraction,
    "uuid.UUID": _uuid,
    "pathlib.PurePosixPath": _purepath,
    "pathlib.PureWindowsPath": _purepath,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _mapping,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _deque,
}

MAKERS: dict[str, Maker] = {
    "datetime": _make_moment,
    "time": _make_moment,
    "date": _make_date,
    "timedelta": _make_timedelta,
    "timezone": _make_timezone,
    "zoneinfo": _make_zoneinfo,
    "decimal": _make_decimal,
    "fraction": _make_fraction,
    "uuid": _make_uuid,
    "purepath": _make_purepath,
    "OrderedDict": _make_ordered,
    "Counter": _make_counter,
    "defaultdict": _make_defaultdict,
    "deque": _make_deque,
}
