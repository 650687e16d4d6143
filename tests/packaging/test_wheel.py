"""The wheel: everything of the package is in it, nothing else is, and every module of it can be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_PACKAGES = {"benchmarks", "build", "dags", "docs", "flows", "tests"}
OPTIONAL = {
    "airflow",
    "datasets",
    "keras",
    "tensorflow",
    "torch",
    "transformers",
    "xgboost",
}  # libraries whose modules need an extra that is not in `all`

IMPORT_ALL = """
import importlib, json, pkgutil, sys, tailrace
missing = {}
names = ["tailrace", *(module.name for module in pkgutil.walk_packages(tailrace.__path__, "tailrace."))]
names = [name for name in names if not name.endswith(".__main__")]  # importing those runs them
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name.partition(".")[0]
files = [sys.modules[name].__file__ for name in names if name in sys.modules]
print(json.dumps({"names": names, "missing": missing, "files": files}))
"""


def _folders() -> list[Path]:
    """The folders of the repository that hold Python files of the package."""
    tops = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in NOT_PACKAGES]
    return sorted({ROOT, *(file.parent for top in tops for file in top.rglob("*.py") if "templates" not in file.parts)})


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, env={**os.environ, **environment}, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy, so that the build leaves nothing in the repository."""
    home = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "node_modules")
    shutil.copytree(ROOT, home / "source", ignore=ignore)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", home / "dist", home / "source")
    (built,) = (home / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_written_packages_are_the_folders() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = [".".join(("tailrace", *folder.relative_to(ROOT).parts)) for folder in _folders()]
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(folders)


def test_the_root_holds_no_module_that_would_slip_into_the_wheel() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_the_wheel_holds_the_modules_of_the_packages_and_nothing_else(names: list[str]) -> None:
    modules = {f"tailrace/{path.relative_to(ROOT).as_posix()}" for folder in _folders() for path in folder.glob("*.py")}
    data = {f"tailrace/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "cli" / "templates").rglob("*.*")}
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == modules | data | {"tailrace/py.typed", "tailrace/routing/tailrace.schema.json"}


def test_the_wheel_carries_licence_and_command(wheel: Path, names: list[str]) -> None:
    (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert f"{info}/licenses/LICENSE" in names
    with zipfile.ZipFile(wheel) as archive:
        assert "tailrace = tailrace.cli:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_every_module_of_the_installed_wheel_is_importable(wheel: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path, wheel)
    found = json.loads(_run(sys.executable, "-c", IMPORT_ALL, PYTHONPATH=str(tmp_path)))
    assert set(found["missing"].values()) <= OPTIONAL, found["missing"]
    assert all(Path(file).is_relative_to(tmp_path) for file in found["files"])
    modules = [path for folder in _folders() for path in folder.glob("*.py") if path.name != "__main__.py"]
    assert len(found["names"]) == len(modules)
