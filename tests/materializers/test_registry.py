from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from tailrace import MaterializationError, MissingExtra, PickleNotAllowed
from tailrace.materializers import registry as registry_module
from tailrace.materializers.base import Spec
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.registry import MaterializerRegistry, choose, load, materializer_for, save
from tailrace.materializers.testing import check_refused, check_round_trip


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


class Warmer(Celsius):
    pass


class CelsiusMaterializer:
    name: ClassVar[str] = "celsius"
    version: ClassVar[int] = 2
    executes_code: ClassVar[bool] = False

    def save(self, value: Celsius, files: FileWriter) -> Spec:
        files.write("degrees.txt", repr(value.degrees).encode())
        return {"kind": type(value).__name__}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Celsius:
        made = {"Celsius": Celsius, "Warmer": Warmer}[spec["kind"]]
        return made(float(bytes(files.read("degrees.txt"))))

    def describe(self, value: Celsius) -> dict[str, Any]:
        return {"degrees": value.degrees}


class Kelvin(CelsiusMaterializer):
    name = "kelvin"


class Coded(CelsiusMaterializer):
    name = "coded"
    executes_code = True


def equal(one: Celsius, other: Celsius) -> bool:
    return type(one) is type(other) and one.degrees == other.degrees


def writer(folder: Path, allow_pickle: str = "never") -> FileWriter:
    folder.mkdir(exist_ok=True)
    return FileWriter(folder, allow_pickle=allow_pickle)


# ---- dispatch


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "plain"),
        (np.float64(1), "plain"),
        (np.ma.array([1]), "numpy"),
        (pd.RangeIndex(3), "pandas"),
        (pd.NaT, "plain"),
        (Path(), "path"),
    ],
)
def test_a_type_is_found_by_the_name_of_its_nearest_base(value: Any, name: str) -> None:
    found = MaterializerRegistry().for_type(type(value))
    assert found is not None
    assert found.name == name


def test_a_type_that_nothing_matches_has_none() -> None:
    assert MaterializerRegistry().for_type(Celsius) is None


def test_registering_clears_what_was_found_before_and_holds_for_sub_classes() -> None:
    registry = MaterializerRegistry()
    assert registry.for_type(Warmer) is None
    registry.register(Celsius, CelsiusMaterializer)
    assert registry.for_type(Warmer) is registry.by_name("celsius")
    assert MaterializerRegistry().for_type(Warmer) is None


def test_a_type_can_be_registered_by_its_name_before_it_exists() -> None:
    registry = MaterializerRegistry()
    registry.register(f"{__name__}.Celsius", CelsiusMaterializer())
    assert registry.for_type(Celsius) is registry.by_name("celsius")


def test_a_taken_type_or_name_is_an_error_unless_asked_for() -> None:
    registry = MaterializerRegistry()
    registry.register(Celsius, CelsiusMaterializer)
    with pytest.raises(ValueError, match=r"has the materializer 'celsius'.*replace=True"):
        registry.register(Celsius, Kelvin)
    with pytest.raises(ValueError, match="has the materializer 'pandas'"):
        registry.register(pd.DataFrame, Kelvin)
    with pytest.raises(ValueError, match="name 'celsius' is taken"):
        registry.register(Warmer, type("Other", (CelsiusMaterializer,), {"name": "celsius"}))
    registry.register(Celsius, Kelvin, replace=True)
    assert registry.for_type(Celsius) is registry.by_name("kelvin")


def test_the_same_definition_again_replaces_itself() -> None:
    registry = MaterializerRegistry()
    registry.register(Celsius, CelsiusMaterializer)
    registry.register(Celsius, CelsiusMaterializer)


def test_a_class_can_be_collected_after_it_was_looked_up() -> None:
    import gc
    import weakref

    registry = MaterializerRegistry()
    cls = type("Passing", (), {})
    registry.for_type(cls)
    gone = weakref.ref(cls)
    del cls
    gc.collect()
    assert gone() is None


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> MaterializerRegistry:
    fresh = MaterializerRegistry(entry_points=False)
    monkeypatch.setattr(registry_module, "default_registry", fresh)
    return fresh


def test_the_decorator_registers_a_class_in_one_line(default: MaterializerRegistry, tmp_path: Path) -> None:
    @materializer_for(Celsius, "elsewhere.Celsius")
    class Mine(CelsiusMaterializer):
        name = "mine"

    files = writer(tmp_path / "a")
    saved = save([Celsius(1.5)], files)
    assert saved.length == 1
    reader = FileReader(tmp_path / "a", {entry.path: entry for entry in files.finish()})
    assert load(saved.materializer, saved.materializer_version, reader, saved.spec)[0].degrees == 1.5
    assert default.for_type(Celsius) is default.by_name("mine")
    assert isinstance(default.by_name("mine"), Mine)


def test_the_battery_proves_a_materializer_of_a_third_party() -> None:
    check_round_trip(Warmer(3.0), CelsiusMaterializer(), equal)


def test_the_battery_finds_one_that_changes_the_value_or_its_bytes() -> None:
    class Rounding(CelsiusMaterializer):
        name = "rounding"

        def save(self, value: Celsius, files: FileWriter) -> Spec:
            files.write("degrees.txt", repr(round(value.degrees)).encode())
            return {"kind": "Celsius"}

    class Counting(CelsiusMaterializer):
        name = "counting"
        count = 0

        def save(self, value: Celsius, files: FileWriter) -> Spec:
            Counting.count += 1
            files.write("count.txt", str(Counting.count).encode())
            return super().save(value, files)

    with pytest.raises(AssertionError, match="came back"):
        check_round_trip(Celsius(1.5), Rounding(), equal)
    with pytest.raises(AssertionError, match=r"differ: \['count.txt'\]"):
        check_round_trip(Celsius(1.5), Counting(), equal)
    with pytest.raises(AssertionError, match="damaged"):
        check_round_trip(
            Celsius(1.5), type("Careless", (CelsiusMaterializer,), {"load": lambda *_: Celsius(1.5)})(), equal
        )


# ---- entry points


def installed(registry: MaterializerRegistry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pretend that a package is installed that brings materializers; returns what is asked of the metadata."""
    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint(f"{__name__}.Celsius", f"{__name__}:CelsiusMaterializer", group)]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    return asked


def test_installed_packages_are_asked_once_and_only_when_nothing_built_in_matches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = MaterializerRegistry()
    asked = installed(registry, monkeypatch)
    for known in (int, list, pd.DataFrame, np.ndarray):
        registry.for_type(known)
    assert asked == []
    found = registry.for_type(Warmer)
    assert found is not None
    assert found.name == "celsius"
    assert registry.for_type(threading.Lock().__class__) is None
    assert asked == ["tailrace.materializers"]


def test_a_stored_name_is_found_among_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = MaterializerRegistry()
    installed(registry, monkeypatch)
    assert registry.by_name("celsius").version == 2


def test_an_installed_materializer_of_a_sub_class_comes_before_the_built_in_one_of_its_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class GeoFrame(pd.DataFrame):
        pass

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(f"{__name__}.{GeoFrame.__qualname__}", f"{__name__}:CelsiusMaterializer", group)]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    found = MaterializerRegistry().for_type(GeoFrame)
    assert found is not None
    assert found.name == "celsius"


# ---- loading by name


def test_an_unknown_name_lists_what_is_known_and_what_to_do() -> None:
    with pytest.raises(MaterializationError, match=r"'pandsa'\. Did you mean 'pandas'\?.*@materializer_for"):
        MaterializerRegistry(entry_points=False).by_name("pandsa")


@pytest.mark.parametrize(
    "name", ["os:system", "tailrace.materializers.pickle:PickleMaterializer", "subprocess.Popen", ""]
)
def test_a_stored_name_that_is_a_place_in_a_module_is_only_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(MaterializationError, match="No materializer is named"):
        load(name, 1, FileReader(tmp_path, {}), {})


def test_an_artifact_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MaterializationError, match=r"version 99 of the materializer 'plain'; here is version 1\. Upgrade"
    ):
        load("plain", 99, FileReader(tmp_path, {}), {})


def test_a_library_that_is_missing_is_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tailrace.materializers.arrow", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tailrace\[arrow\]'"):
        MaterializerRegistry().by_name("arrow")


def test_a_spec_that_json_would_change_is_refused(tmp_path: Path) -> None:
    class Careless(CelsiusMaterializer):
        name = "careless"

        def save(self, value: Celsius, files: FileWriter) -> Spec:
            files.write("x", b"1")
            return {"shape": (1, 2)}

    registry = MaterializerRegistry()
    registry.register(Celsius, Careless)
    files = writer(tmp_path / "a")
    with pytest.raises(PickleNotAllowed, match="spec of the materializer 'careless' is not plain JSON"):
        registry.save(Celsius(1), files)
    assert files.finish() == ()


# ---- the policy on pickle


def test_never_refuses_with_type_place_policy_and_both_ways_out() -> None:
    error = check_refused(
        {"models": [1, Celsius(1)]},
        "value at ['models'][1]",
        f"{__name__}.Celsius",
        "no materializer is registered",
        "allow_pickle is 'never'",
        "`allow_pickle: fallback`",
        "@materializer_for",
    )
    assert isinstance(error, PickleNotAllowed)


def test_the_label_names_the_value_in_messages(tmp_path: Path) -> None:
    with pytest.raises(PickleNotAllowed, match=r"^the output 'x' of step 'y' at \['a'\] is a "):
        save({"a": Celsius(1)}, writer(tmp_path / "a"), label="the output 'x' of step 'y'")


def test_fallback_pickles_only_what_nothing_else_takes_and_warns_with_the_type(tmp_path: Path) -> None:
    files = writer(tmp_path / "a", "fallback")
    with pytest.warns(UserWarning, match=r"at \['c'\] is a .*Celsius.*loading it executes code"):
        saved = save({"a": np.arange(3), "c": Celsius(1)}, files)
    assert saved.materializer == "plain"
    assert [entry.path for entry in files.finish()] == ["item-0/data.npy", "item-1/value.pkl", "value.json"]


def test_fallback_pickles_a_whole_that_its_own_materializer_refuses_and_leaves_no_half(tmp_path: Path) -> None:
    cyclic: list[Any] = [np.arange(3)]
    cyclic.append(cyclic)
    files = writer(tmp_path / "a", "fallback")
    with pytest.warns(UserWarning, match="contains itself"):
        assert save(cyclic, files).materializer == "pickle"
    assert [entry.path for entry in files.finish()] == ["value.pkl"]
    assert [item.name for item in (tmp_path / "a").iterdir()] == ["value.pkl"]


def test_always_does_the_same_without_the_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = save(Celsius(1), writer(tmp_path / "a", "always"))
        assert save({"a": 1}, writer(tmp_path / "b", "always")).materializer == "plain"
    assert saved.materializer == "pickle"
    check_round_trip(Celsius(1), equal=equal, allow_pickle="always")


def test_a_registered_format_that_executes_code_needs_the_policy_too() -> None:
    check_round_trip(Celsius(1.0), Coded(), equal, allow_pickle="fallback")


@pytest.mark.parametrize("value", [threading.Lock(), {"a": [threading.Lock()]}])
def test_what_not_even_pickle_takes_names_type_place_and_policy(value: Any) -> None:
    place = "value at ['a'][0]" if isinstance(value, dict) else "value is"
    error = check_refused(value, place, "_thread.lock", "pickle failed", "'fallback'", allow_pickle="fallback")
    assert not isinstance(error, PickleNotAllowed)


@pytest.mark.parametrize("policy", ["never", "always"])
def test_an_asynchronous_generator_is_answered_with_return_a_list(policy: str) -> None:
    async def arriving() -> AsyncIterator[int]:
        yield 1

    check_refused(arriving(), "async_generator", "Return a list", allow_pickle=policy)


SPRUNG: list[str] = []


def spring() -> None:
    SPRUNG.append("unpickled")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return spring, ()


@pytest.mark.parametrize("value", [Trap(), [Trap()]], ids=["whole", "member"])
def test_under_never_a_stored_pickle_is_not_even_opened(value: Any, tmp_path: Path) -> None:
    files = writer(tmp_path / "a", "always")
    saved = save(value, files)
    entries = {entry.path: entry for entry in files.finish()}
    SPRUNG.clear()
    with pytest.raises(PickleNotAllowed, match=r"the-artifact \(pickle\) executes code.*allow_pickle: fallback"):
        load(saved.materializer, 1, FileReader(tmp_path / "a", entries, label="the-artifact"), saved.spec)
    assert SPRUNG == []
    load(saved.materializer, 1, FileReader(tmp_path / "a", entries, allow_pickle="fallback"), saved.spec)
    assert SPRUNG == ["unpickled"]


# ---- explain


@pytest.mark.parametrize(
    ("kind", "materializer", "reason"),
    [
        (dict, "plain", "registered for this type"),
        (list[int], "plain", "registered for this type"),
        (pd.DataFrame, "pandas", "registered for this type"),
        (np.float64, "plain", "registered for numpy.generic"),
        ("dict", "plain", "registered for this type"),
        ("pandas.DataFrame", "pandas", "registered for this type"),
        ("some_library.Model", None, "decided by the value that arrives"),
        (Celsius, None, "only pickle would do"),
        (Any, None, "decided by the value that arrives"),
    ],
)
def test_choose_explains_without_a_value(kind: Any, materializer: str | None, reason: str) -> None:
    found = choose(kind)
    assert found.materializer == materializer
    assert reason in found.reason


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_choosing_by_name_imports_no_library() -> None:
    code = (
        "import sys; from tailrace.materializers.registry import choose\n"
        "names = ['sklearn.linear_model.LogisticRegression', 'pyarrow.Table', 'numpy.ndarray', 'pathlib.Path']\n"
        "print([choose(name).materializer for name in names])\n"
        "print({'numpy', 'pandas', 'pyarrow', 'sklearn', 'pydantic'} & set(sys.modules))"
    )
    assert run(code) == "['sklearn', 'arrow', 'numpy', 'path']\nset()"


def test_saving_plain_values_imports_no_heavy_library() -> None:
    code = (
        "import sys, tempfile, pathlib\n"
        "from tailrace.materializers.registry import save\n"
        "from tailrace.materializers.files import FileWriter\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    save({'a': [1, (2, 3)], 'b': {1.5}}, FileWriter(pathlib.Path(folder)))\n"
        "heavy = 'numpy pandas pyarrow sklearn skops pydantic cloudpickle mlflow prefect sqlalchemy fsspec yaml'\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)))"
    )
    assert run(code) == "[]"
