from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import io
import math
import pathlib
import struct
import sys
import typing
import uuid
import zoneinfo
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import IntegrityError, MaterializationError
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.registry import load, save
from tailrace.materializers.tagged import TAG, decode, dumps, encode, is_plain, loads
from tailrace.materializers.testing import check_refused, check_round_trip, restored


class Color(enum.Enum):
    RED = 1
    GREEN = "g"
    ALIAS = 1  # noqa: PIE796 - an alias


class Level(enum.IntEnum):
    LOW = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Pair(typing.NamedTuple):
    left: int
    right: Any = "r"


@dataclasses.dataclass
class Config:
    rate: float
    layers: list[int] = dataclasses.field(default_factory=list)
    made: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.made += 1


@dataclasses.dataclass
class Late:
    given: int
    made: int = dataclasses.field(init=False)
    extra: list[int] = dataclasses.field(default_factory=list)
    kept: dataclasses.InitVar[int] = 3

    def __post_init__(self, kept: int) -> None:
        self.made = kept + self.given


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = None


@dataclasses.dataclass
class Named(dict):  # type: ignore[type-arg]
    name: str = ""


class Model(pydantic.BaseModel):
    rate: float = pydantic.Field(alias="learning_rate")
    layers: list[int] = []
    hidden: int = pydantic.Field(default=1, exclude=True)
    _seen: int = pydantic.PrivateAttr(0)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    value: Any = None


class Text(str):
    __slots__ = ()


class Stack(list):  # type: ignore[type-arg]
    pass


ZONES = [dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=45), "here"), zoneinfo.ZoneInfo("Europe/Paris")]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.datetimes(timezones=st.sampled_from([None, *ZONES]))
    | st.times()
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.sampled_from([*Color, *Level, Permission.READ | Permission.RUN, Pair(1), Point(1, (2,)), ...])
    | st.builds(np.float32, st.floats(width=32))
    | st.builds(np.int64, st.integers(-(2**63), 2**63 - 1))
)


def can_be_key(value: Any) -> bool:
    return not (isinstance(value, decimal.Decimal) and value.is_snan())


KEYS = SCALARS.filter(can_be_key)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
        | st.lists(inner).map(lambda items: collections.deque(items, maxlen=9))
        | st.dictionaries(KEYS, inner).map(collections.OrderedDict)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, st.integers(), inner)
        | st.builds(lambda value: Open(value=value), inner)
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(SCALARS, containers, max_leaves=30))
def test_nested_containers_of_anything_come_back_exactly_and_with_the_same_bytes(value: Any) -> None:
    check_round_trip(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != TAG), inner),
)


@settings(deadline=None)
@given(JSON)
def test_what_json_can_hold_is_stored_as_the_plain_json_it_is(value: Any) -> None:
    assert is_plain(value)
    assert encode(value) is value
    assert orjson.loads(dumps(value)) == value


EXACT = {
    "keys that end like a tag": [{'"$t': 1}, {"a$t": "$t"}],
    "NaN beside None and the text null": [None, float("nan"), "null", [{"a": float("nan")}]],
    "a dataclass that sets a field before the others": Late(1),
    "a zone that is not the one of its name": zoneinfo.ZoneInfo.no_cache("Europe/Paris"),
    "a big int": 2**64,
    "an int of five thousand digits": 10**5000,
    "the largest JSON int": 2**64 - 1,
    "minus zero": -0.0,
    "infinity": math.inf,
    "a NaN with its sign": struct.unpack(">d", bytes.fromhex("fff8000000000000"))[0],
    "a NaN with a payload": struct.unpack(">d", bytes.fromhex("7ff8000000001234"))[0],
    "a lone surrogate": "\ud800 and \\u0041 and \U0001f600",
    "an empty text": "",
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"ab"),
    "a key like a tag": {"$t": "tuple", "v": [1]},
    "keys that JSON would merge": {1: "int", "1": "text", (1,): "tuple", None: "none"},
    "True and 1 apart": [True, 1, 1.0],
    "a dict's order": {"b": 1, "a": 2},
    "an ambiguous hour": dt.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    "a zone": zoneinfo.ZoneInfo("Asia/Kathmandu"),
    "a fixed zone": dt.timezone(dt.timedelta(seconds=1)),
    "decimals of equal value": [
        decimal.Decimal("1.10"),
        decimal.Decimal("1.1"),
        decimal.Decimal("-0"),
        decimal.Decimal("sNaN12"),
    ],
    "a big fraction": fractions.Fraction(10**30, 7),
    "a safe UUID": uuid.uuid1(),
    "a range": range(0, 10**20, 3),
    "a slice": slice(None, (1, 2), -1),
    "a pure path": pathlib.PurePosixPath("a/../b"),
    "a windows path": pathlib.PureWindowsPath("C:\\a"),
    "an enum's alias": Color.ALIAS,
    "an int enum": Level.LOW,
    "a combination of flags": Permission.READ | Permission.WRITE,
    "no flag": Permission(0),
    "a counter": collections.Counter("hello"),
    "a defaultdict": collections.defaultdict(list, {"a": [1]}),
    "a defaultdict without a factory": collections.defaultdict(None, {(1, 2): 3}),
    "a dataclass": Config(0.1, [1, 2]),
    "a frozen dataclass with slots": Point({1, 2}, Point(None)),
    "a model by alias": Model(learning_rate=math.nan, layers=[1]),
    "a numpy text with a trailing NUL": np.str_("a\0"),
    "a numpy record": np.rec.array([(1, 2.5)], dtype=[("a", "i1"), ("b", "f8")])[0],
    "numpy scalars": [
        np.float64("nan"),
        np.longdouble("1.1"),
        np.bool_(True),
        np.datetime64("NaT", "ns"),
        np.complex64(1j),
    ],
    "pandas scalars": [pd.NA, pd.NaT, pd.Timedelta(5, "ns"), pd.Period("2020", "Y-JUN"), pd.Interval(0, 1, "both")],
    "timestamps": [pd.Timestamp("2020-01-01", tz=zone) for zone in (None, "UTC", "Europe/Paris", ZONES[1])],
    "a timestamp in seconds": pd.Timestamp("1500-01-01").as_unit("s"),
}


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_this_value_comes_back_exactly(value: Any) -> None:
    check_round_trip(value)


def test_the_state_of_objects_is_restored_without_running_their_code() -> None:
    changed = Config(0.1)
    changed.made, changed.extra = 7, "note"  # type: ignore[attr-defined]
    model = Model(learning_rate=1.0)
    model._seen = 5
    loaded = restored([changed, model, Open.model_validate({"value": 1, "more": [2]})])
    assert vars(loaded[0]) == {"rate": 0.1, "layers": [], "made": 7, "extra": "note"}
    assert loaded[1]._seen == 5
    assert loaded[1].model_fields_set == {"rate"}
    assert loaded[2].model_extra == {"more": [2]}


def test_equal_values_have_equal_bytes_whatever_order_a_set_or_a_dataclass_was_filled_in() -> None:
    one, other = Config(1.0), Config(1.0)
    one.b, one.a = 1, 2  # type: ignore[attr-defined]
    other.a, other.b = 2, 1  # type: ignore[attr-defined]
    assert dumps(encode([one, {"x", "y", "z"}])) == dumps(encode([other, {"z", "y", "x"}]))


class Derived(Config):
    """Not a dataclass itself, but one by its base."""


def counter_with_a_unit() -> Any:
    counter: Any = collections.Counter("ab")
    counter.unit = "m"
    return counter


def zone_of_a_file() -> Any:
    content = (
        b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 9 * 3600, 0, 0) + b"JST\0"
    )
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(content), key="Europe/Paris")


UNHOLDABLE = {
    "a zone from a file, with the name of another": (zone_of_a_file(), "read from a file"),
    "a sub-class of str": (Text("a"), "Text"),
    "a sub-class of list, deep inside": ({"a": [Stack()]}, "['a'][0]"),
    "a function": ({"f": [print]}, "['f'][0]"),
    "a dataclass that is also a dict": (Named(name="n"), "Named"),
    "a defaultdict whose factory is code": (collections.defaultdict(lambda: 0), "default_factory"),
    "a Counter with attributes": (counter_with_a_unit(), "unit"),
}


@pytest.mark.parametrize("case", UNHOLDABLE)
def test_what_would_come_back_otherwise_is_refused_by_type_and_place(case: str) -> None:
    value, mention = UNHOLDABLE[case]
    check_refused(value, mention, "allow_pickle", "@materializer_for")


def test_a_class_made_inside_a_function_is_refused_with_the_way_out() -> None:
    @dataclasses.dataclass
    class Local:
        x: int = 1

    check_refused([Local()], "[0]", "Local", "move it to the top of its module")


def test_a_class_that_was_replaced_since_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    value = Point(1)
    monkeypatch.setattr(sys.modules[__name__], "Point", type("Point", (), {}))
    check_refused(value, "Point", "another")


def test_a_class_that_is_gone_when_loading_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = encode(Color.RED)
    monkeypatch.delattr(sys.modules[__name__], "Color")
    with pytest.raises(MaterializationError, match=r"Color.*not there"):
        decode(tree)


def test_a_class_of_a_module_loaded_from_a_path_comes_back_in_the_same_process(tmp_path: pathlib.Path) -> None:
    import importlib.util

    (tmp_path / "my flow.py").write_text("import enum\nclass Kind(enum.Enum):\n    A = 1\n")
    spec = importlib.util.spec_from_file_location("my_flow_by_path", tmp_path / "my flow.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        assert restored(module.Kind.A) is module.Kind.A
        tree = encode(module.Kind.A)
    finally:
        del sys.modules[spec.name]
    with pytest.raises(MaterializationError, match="cannot be imported here"):
        decode(tree)


def cyclic_list() -> Any:
    items: list[Any] = [1]
    items += [items, items]
    return items


def cyclic_tuple() -> Any:
    items: list[Any] = []
    items.append((items, {items.__len__(): items}))
    return items


def deep(make: Any) -> Any:
    value: Any = 0
    for _ in range(3000):
        value = make(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        cyclic_list(),
        cyclic_tuple(),
        deep(lambda inner: [inner]),
        deep(lambda inner: {"a": inner}),
        deep(lambda inner: (inner,)),
    ],
    ids=["cyclic", "cyclic with tuples", "deep lists", "deep dicts", "deep tuples"],
)
def test_cyclic_and_too_deep_structures_are_refused_cleanly(value: Any) -> None:
    check_refused(value, "nested")


@pytest.mark.parametrize("depth", [50, 120])
def test_what_could_be_saved_can_be_loaded_however_deep(depth: int) -> None:
    value: Any = 0
    for _ in range(depth):
        value = (value,)
    check_round_trip(value)


def stored(value: Any, tmp_path: pathlib.Path) -> tuple[Any, Any, FileReader]:
    writer = FileWriter(tmp_path)
    saved = save(value, writer)
    return saved, writer.finish(), FileReader(tmp_path, {entry.path: entry for entry in writer.finish()})


def test_members_of_a_container_are_saved_by_their_own_materializers_in_folders(tmp_path: pathlib.Path) -> None:
    value = {"train": pd.DataFrame({"a": [1]}), "meta": {"weights": [np.arange(3), np.ones((2, 2))]}, "n": 1}
    saved, entries, reader = stored(value, tmp_path)
    assert [entry.path for entry in entries] == [
        "item-0/data.parquet",
        "item-1/data.npy",
        "item-2/data.npy",
        "value.json",
    ]
    json = loads((tmp_path / "value.json").read_bytes())
    assert json["n"] == 1
    assert json["train"]["folder"] == "item-0"
    assert json["train"]["v"]["materializer"] == "pandas"
    loaded = load(saved.materializer, saved.materializer_version, reader, saved.spec)
    assert loaded["meta"]["weights"][1].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    check_round_trip(value)
    check_round_trip([Point(np.arange(2), pd.Series([1])), Open(value=np.ones(1))])


def test_numbers_of_numpy_in_a_dict_stay_readable_and_need_no_files(tmp_path: pathlib.Path) -> None:
    _, entries, _ = stored({"accuracy": np.float64(0.9)}, tmp_path)
    assert [entry.path for entry in entries] == ["value.json"]
    assert b'{"$t":"numpy","dtype":"<f8","v":0.9}' in (tmp_path / "value.json").read_bytes()


def test_bytes_are_stored_as_a_file_of_these_bytes(tmp_path: pathlib.Path) -> None:
    stored(b"\x89PNG", tmp_path)
    assert (tmp_path / "value.bin").read_bytes() == b"\x89PNG"


def test_the_length_is_recorded_of_lists_and_tuples_only(tmp_path: pathlib.Path) -> None:
    values: list[Any] = [[1, 2], (1,), [], {"a": 1}, "ab", {1}]
    for place in range(len(values)):
        (tmp_path / str(place)).mkdir()
    lengths = [stored(value, tmp_path / str(place))[0].length for place, value in enumerate(values)]
    assert lengths == [2, 1, 0, None, None, None]


def test_an_unknown_kind_of_a_newer_version_is_named_when_loading() -> None:
    with pytest.raises(MaterializationError, match="unknown kind 'quaternion'"):
        decode({"$t": "quaternion", "v": []})


GOLDEN = {
    '{"a":[1,2.5,null,true,"x"]}': {"a": [1, 2.5, None, True, "x"]},
    '{"$t":"tuple","v":[1,{"$t":"set","v":[1,2]}]}': (1, {1, 2}),
    '{"$t":"dict","v":[[1,"a"]]}': {1: "a"},
    '{"$t":"int","v":"0x10000000000000000"}': 2**64,
    '{"$t":"float","v":"nan"}': math.nan,
    '{"$t":"datetime","zone":{"$t":"zoneinfo","v":"UTC"},"v":"2020-01-02T03:04:05"}': dt.datetime(
        2020, 1, 2, 3, 4, 5, tzinfo=zoneinfo.ZoneInfo("UTC")
    ),
    '{"$t":"decimal","v":"1.10"}': decimal.Decimal("1.10"),
    '{"$t":"numpy","dtype":"<f4","v":0.5}': np.float32(0.5),
    '{"$t":"pandas","kind":"Timestamp","unit":"us","v":0}': pd.Timestamp("1970-01-01").as_unit("us"),
}


@pytest.mark.parametrize("golden", GOLDEN)
def test_version_one_of_the_format_is_what_it_was(golden: str) -> None:
    value = GOLDEN[golden]
    assert dumps(encode(value)).decode() == golden
    again = decode(loads(golden.encode()))
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def class_node(kind: str, name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"$t": "class", "kind": kind, "class": name, "v": value, **more}


THIS = __name__
HOSTILE: dict[str, Any] = {
    "a process as a dataclass": class_node("dataclass", "subprocess:Popen", {"args": "touch ran"}),
    "a function as an enum": class_node("enum", "os:system", "touch ran"),
    "a function as a named tuple": class_node("namedtuple", "builtins:eval", {}),
    "a class with a constructor as a model": class_node("pydantic model", "pathlib:Path", {}),
    "an attribute of an attribute": class_node("dataclass", "os:path.os.system", {}),
    "a kind that is none": class_node("callable", "os:system", "touch ran"),
    "a module that is not there": class_node("enum", "no_such_module_anywhere:Color", "RED"),
    "no class at all": class_node("enum", "", "RED"),
    "another class by a slot": class_node("dataclass", f"{THIS}:Point", None, slots={"__class__": 1}),
    "fields that the tuple does not have": class_node("namedtuple", f"{THIS}:Pair", {"left": 1}),
    "a factory that is code": {"$t": "defaultdict", "factory": "eval", "v": []},
    "objects in a scalar": {"$t": "numpy", "dtype": "|O", "bytes": True, "v": "AAAAAAAAAAA="},
    "objects in an array": {"$t": "array", "dtype": "|O", "shape": [1], "v": "AAAAAAAAAAA="},
    "a pickle as a member": {"$t": "member", "folder": "x", "v": {"materializer": "pickle", "version": 1, "spec": {}}},
    "a member outside": {"$t": "member", "folder": "../..", "v": {"materializer": "plain", "version": 1, "spec": {}}},
}


@pytest.mark.parametrize("node", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_value_is_refused_and_runs_nothing(node: Any, project: pathlib.Path) -> None:
    writer = FileWriter(project)
    writer.write("value.json", dumps([node]))
    reader = FileReader(project, {entry.path: entry for entry in writer.finish()})
    with pytest.raises((MaterializationError, IntegrityError)):
        load("plain", 1, reader, {"tagged": True})
    assert not (project / "ran").exists()


def test_a_stored_dataclass_cannot_change_what_it_is(project: pathlib.Path) -> None:
    loaded = decode(class_node("dataclass", f"{THIS}:Config", {"__class__": 1, "rate": 2}))
    assert type(loaded) is Config
    assert loaded.rate == 2
