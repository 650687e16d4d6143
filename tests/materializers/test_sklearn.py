from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import skops.io
import yaml
from sklearn.base import BaseEstimator
from sklearn.cluster import Birch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tailrace import MaterializationError
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import load, save
from tailrace.materializers.skops_file import MEMORY_ADDRESSES, canonical, trusted_names
from tailrace.materializers.testing import check_refused, check_round_trip

from .models import MODELS, SMALL, SMALL_Y, X

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: fit() for name, fit in MODELS.items()}


def same(one: Any, other: Any) -> bool:
    return difference(one, other, ignoring=MEMORY_ADDRESSES) is None


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_in_every_attribute_with_the_same_bytes(name: str, models: dict[str, Any]) -> None:
    loaded = check_round_trip(models[name], equal=same)
    if name == "forest":
        assert (loaded.predict_proba(X) == models[name].predict_proba(X)).all()


def test_a_search_comes_back() -> None:
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [1, 2]}, cv=StratifiedKFold(2), scoring="roc_auc")
    check_round_trip(search.fit(SMALL, SMALL_Y))


def test_models_inside_a_dict_are_saved_each_in_its_safe_format(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)
    save({"best": StandardScaler().fit(SMALL), "score": 0.9}, writer)
    assert "item-0/model.skops" in [entry.path for entry in writer.finish()]


def test_two_processes_with_different_hash_seeds_write_the_same_bytes() -> None:
    script = Path(__file__).with_name("models.py")
    running = [
        subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    found = [json.loads(process.communicate()[0]) for process in running]
    assert found[0] == found[1]
    assert set(found[0]) == set(MODELS)


def test_the_file_is_one_that_plain_skops_loads(models: dict[str, Any], tmp_path: Path) -> None:
    save(models["forest"], FileWriter(tmp_path))
    loaded = skops.io.load(tmp_path / "model.skops", trusted=["sklearn.tree._tree.Tree"])
    assert difference(models["forest"], loaded) is None


def test_a_canonical_file_is_its_own_canonical_form(models: dict[str, Any]) -> None:
    once = canonical(skops.io.dumps(models["columns"]))
    assert canonical(once) == once
    with zipfile.ZipFile(io.BytesIO(once)) as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# ---- MLflow


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import mlflow.pyfunc
    import mlflow.sklearn

    return mlflow  # type: ignore[return-value]


@pytest.mark.filterwarnings("default")
def test_mlflow_loads_the_artifacts_folder_as_its_own(models: dict[str, Any], tmp_path: Path, mlflow: Any) -> None:
    writer = FileWriter(tmp_path / "model")
    (tmp_path / "model").mkdir()
    save(models["linear"], writer)
    entries = writer.finish()
    expected = models["linear"].predict(SMALL)
    assert (mlflow.sklearn.load_model(str(tmp_path / "model")).predict(SMALL) == expected).all()
    assert (mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(SMALL) == expected).all()
    assert sorted(item.name for item in (tmp_path / "model").iterdir()) == [entry.path for entry in entries]


@pytest.mark.filterwarnings("default")
def test_mlflow_loads_a_transformer_by_its_own_flavor_only(tmp_path: Path, mlflow: Any) -> None:
    save(StandardScaler().fit(SMALL), FileWriter(tmp_path))
    assert mlflow.sklearn.load_model(str(tmp_path)).n_features_in_ == 4
    assert list(yaml.safe_load((tmp_path / "MLmodel").read_text())["flavors"]) == ["sklearn"]


def test_mlflow_is_not_imported_to_write_its_files() -> None:
    code = (
        "import sys, tempfile, pathlib\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from tailrace.materializers.registry import save\n"
        "from tailrace.materializers.files import FileWriter\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    save(LinearRegression(), FileWriter(pathlib.Path(folder)))\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- metadata


def test_the_metadata_say_hyperparameters_features_classes_and_importances(
    models: dict[str, Any], tmp_path: Path
) -> None:
    about = save(models["forest"], FileWriter(tmp_path)).metadata
    assert about["type"].endswith("RandomForestClassifier")
    assert about["hyperparameters"]["n_estimators"] == 20
    assert about["fitted"] is True
    assert about["n_features"] == 30
    assert about["classes"] == [0, 1]
    assert len(about["feature_importances"]) == 30
    assert about["feature_importances"]["mean radius"] > 0


def test_the_metadata_of_a_model_that_is_not_fitted_say_so(models: dict[str, Any], tmp_path: Path) -> None:
    about = save(models["not fitted"], FileWriter(tmp_path)).metadata
    assert about["fitted"] is False
    assert about["hyperparameters"]["svc__C"] == 1.0


# ---- what is refused when saving


class Mine(BaseEstimator):  # type: ignore[misc]
    pass


def double(x: Any) -> Any:
    return 2 * x


REFUSED: dict[str, tuple[Any, str]] = {
    "a class of the user's": (make_pipeline(Mine(), LogisticRegression()), f"{__name__}.Mine"),
    "a function of the user's": (FunctionTransformer(double), f"{__name__}.double"),
    "a function that writes files": (FunctionTransformer(np.save), "numpy.save"),
    "a class that executes its state": (
        RandomizedSearchCV(LogisticRegression(), {"C": scipy.stats.uniform()}),
        "uniform_gen",
    ),
    "what skops does not take": (Birch(), "Birch"),
    "what skops changes": (LogisticRegression(class_weight={False: 1, True: 2}), "class_weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_safe_or_not_exact_is_refused_by_name(case: str) -> None:
    value, mention = REFUSED[case]
    check_refused(value, mention, "allow_pickle")


def test_under_fallback_such_a_model_is_pickled_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"Mine.*loading it executes code"):
        assert save(Mine(), FileWriter(tmp_path, allow_pickle="fallback")).materializer == "pickle"


# ---- hostile files: each would run code if its names were trusted by their module


def node(loader: str, name: str, **more: Any) -> dict[str, Any]:
    module, _, cls = name.rpartition(".")
    return {"__module__": module, "__class__": cls, "__loader__": loader, **more}


def text(value: str) -> dict[str, Any]:
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def arguments(*values: dict[str, Any]) -> dict[str, Any]:
    return node("TupleNode", "builtins.tuple", content=list(values))


def state(**values: dict[str, Any]) -> dict[str, Any]:
    kinds = node("ListNode", "builtins.list", content=[node("TypeNode", "builtins.str") for _ in values])
    return node("DictNode", "builtins.dict", content=values, key_types=kinds)


CODE = "import pathlib; pathlib.Path('ran').touch()"
HOSTILE: dict[str, dict[str, Any]] = {
    "text for numpy to run": node(
        "ConstructorFromReduceNode", "numpy.testing.runstring", content=arguments(text(CODE), state())
    ),
    "a private name of it": node(
        "ConstructorFromReduceNode", "numpy.testing._private.utils.runstring", content=arguments(text(CODE), state())
    ),
    "a file for numpy to overwrite": node(
        "ConstructorFromReduceNode", "numpy.memmap", content=arguments(text("ran"), text("u1"), text("w+"))
    ),
    "state for scipy to run": node(
        "ObjectNode", "scipy.stats._continuous_distns.norm_gen", content=state(_parse_arg_template=text(CODE))
    ),
    "a command": node("ConstructorFromReduceNode", "os.system", content=arguments(text("touch ran"))),
    "a process": node("ConstructorFromReduceNode", "subprocess.Popen", content=arguments(text("ran"))),
    "a partial": node(
        "PartialNode",
        "functools.partial",
        content={"func": node("FunctionNode", "os.system"), "args": arguments(), "kwds": state(), "namespace": state()},
    ),
    "a method": node(
        "MethodNode", "pathlib.Path", content={"func": "touch", "obj": node("ObjectNode", "pathlib.Path")}
    ),
    "a module of tests": node("ObjectNode", "sklearn.utils._testing.TempMemmap"),
    "a function as a class": node("ObjectNode", "sklearn.metrics._classification.accuracy_score"),
    "a class as a function": node("FunctionNode", "sklearn.preprocessing._data.StandardScaler"),
    "a constructor with arguments": node(
        "ConstructorFromReduceNode", "sklearn.datasets._base.load_files", content=arguments(text("."))
    ),
    "the same name used well and badly": node(
        "ListNode",
        "builtins.list",
        content=[
            node("ObjectNode", "sklearn.utils._bunch.Bunch"),
            node("ConstructorFromReduceNode", "sklearn.utils._bunch.Bunch", content=arguments()),
        ],
    ),
}


def hostile_file(schema: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("schema.json", json.dumps({**schema, "protocol": 2, "_skops_version": skops.__version__}))
    return stream.getvalue()


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_before_anything_is_made_of_it(case: str, project: Path) -> None:
    data = hostile_file(HOSTILE[case])
    writer = FileWriter(project)
    writer.write("model.skops", data)
    reader = FileReader(project, {entry.path: entry for entry in writer.finish()})
    with pytest.raises(MaterializationError, match="not known to be safe"):
        load("sklearn", 1, reader, {})
    assert not (project / "ran").exists()


def test_the_hostile_files_would_run_if_their_names_were_trusted(project: Path) -> None:
    data = hostile_file(HOSTILE["state for scipy to run"])
    names = skops.io.get_untrusted_types(data=data)
    with pytest.raises(MaterializationError):
        trusted_names(data)
    with pytest.raises(Exception):  # noqa: B017 - whatever it does after the code ran
        skops.io.loads(data, trusted=names).pdf(0)
    assert (project / "ran").exists()
