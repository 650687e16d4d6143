"""``tailrace doctor``: what is installed, what the active stack needs, and whether it can be reached."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .options import AsJson, Config, Stack

if TYPE_CHECKING:
    from ..routing.stacks import Component
    from ..routing.stacks import Stack as StackOf

__all__ = ["PACKAGES", "doctor"]

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "": (
        *(
            "prefect",
            "fastapi",
            "mlflow",
            "fsspec",
            "botocore",
            "s3fs",
            "gcsfs",
            "cloudpickle",
            "orjson",
            "blake3",
            "PyYAML",
        ),
        *("pydantic", "SQLAlchemy", "typer", "rich"),
    ),
    "numpy": ("numpy",),
    "pandas": ("pandas", "pyarrow"),
    "arrow": ("pyarrow",),
    "polars": ("polars",),
    "scipy": ("scipy",),
    "xarray": ("xarray",),
    "sklearn": ("scikit-learn", "skops"),
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "catboost": ("catboost",),
    "onnx": ("onnx",),
    "pillow": ("pillow",),
    "matplotlib": ("matplotlib",),
    "plotly": ("plotly",),
    "torch": ("torch",),
    "keras": ("keras",),
    "tensorflow": ("tensorflow",),
    "huggingface": ("transformers", "datasets"),
    "postgres": ("psycopg",),
    "azure": ("adlfs",),
    "dask": ("prefect-dask", "distributed"),
    "airflow": ("apache-airflow",),
}
"""The packages of the plain install (``""``) and of each extra, as pyproject.toml has them."""

_NEEDS = {
    "local": ("prefect",),
    "airflow": ("apache-airflow",),
    "mlflow": ("mlflow",),
    "s3": ("botocore",),
    "gcs": ("gcsfs",),
    "azure": ("adlfs",),
}
_PATIENCE = 5.0  # seconds to wait for a server


@dataclass(frozen=True)
class Check:
    """What was looked at. ``state`` is ``ok``, ``missing``, ``failed``, or ``absent`` where that is no fault."""

    group: str
    name: str
    state: str
    detail: str

    @property
    def sound(self) -> bool:
        """Whether a run can do with it."""
        return self.state in {"ok", "absent"}


def doctor(stack: Stack = None, config: Config = None, json: AsJson = False) -> None:
    """Check the installation and the active stack: each store by a probe. Exit code 0 if the stack can run, else 1."""
    from .show import console, listing, styled, table

    checks = list(_checks(stack, config))
    sound = all(check.sound for check in checks)
    if json:
        listing([asdict(check) for check in checks], {}, json=True, empty="")
    else:
        out, made, group = console(), table("", "", "", ""), ""
        made.show_header = False
        for check in checks:
            shown, group = ("" if check.group == group else check.group), check.group
            made.add_row(shown, check.name, styled(check.state), check.detail)
        out.print(made)
        out.print("\nThe stack can run." if sound else "\nThe stack cannot run: see above.", style="bold")
    if not sound:
        raise typer.Exit(1)


def _checks(name: str | None, config: str | None) -> Iterator[Check]:
    from ..core.errors import ConfigError
    from ..routing.stacks import resolve_stack

    yield Check("Python", sys.version.split()[0], "ok", sys.executable)
    yield from _packages()
    try:
        stack = resolve_stack(name, config=config)
    except ConfigError as error:
        for problem in error.problems:
            yield Check("Stack", name or "", "failed", str(problem))
        return
    yield Check("Stack", stack.name, "ok", str(stack.source or "built in: there is no tailrace.yaml here or above"))
    yield from _needs(stack)
    yield from _stores(stack)
    yield from _servers(stack)


# --- packages ---------------------------------------------------------------------------------------------------------


def _packages() -> Iterator[Check]:
    for package in PACKAGES[""]:
        version = _version(package)
        yield Check("Core", package, "ok" if version else "missing", version or f"pip install {package}")
    for extra, packages in list(PACKAGES.items())[1:]:
        lacking = [package for package in packages if not _version(package)]
        versions = ", ".join(f"{package} {_version(package)}" for package in packages if package not in lacking)
        advice = f"pip install 'tailrace[{extra}]'"
        yield Check("Extra", extra, "absent" if lacking else "ok", advice if lacking else versions)


def _version(package: str) -> str:
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


# --- the stack --------------------------------------------------------------------------------------------------------


def _parts(stack: StackOf) -> Iterator[tuple[str, Component]]:
    yield "orchestrator", stack.orchestrator
    for name, store in stack.stores.items():
        yield f"store {name}", store
    for kind in ("tracker", "registry", "deployer"):
        part = getattr(stack, kind)
        if part is not None:
            yield kind, part


def _needs(stack: StackOf) -> Iterator[Check]:
    for kind, part in _parts(stack):
        needed = () if kind.startswith("store") and part.type == "local" else _NEEDS.get(part.type, ())
        lacking = [package for package in needed if not _version(package)]
        extra = next((name for name, packages in PACKAGES.items() if name and set(lacking) & set(packages)), "")
        wanted = f"'tailrace[{extra}]'" if extra else " ".join(lacking)
        detail = f"pip install {wanted}" if lacking else ", ".join(needed)
        yield Check("Needs", f"{kind}: {part.type}", "missing" if lacking else "ok", detail)


def _stores(stack: StackOf) -> Iterator[Check]:
    from ..core.errors import TailraceError
    from ..routing.router import Router
    from ..stores.probe import probe
    from .show import duration

    router = Router(stack)
    for name in stack.stores:
        try:
            store = router.store(name)
            seconds = probe(store)
        except (TailraceError, OSError) as error:
            yield Check("Store", name, "failed", str(error))
        else:
            took = ", ".join(f"{act} {duration(spent)}" for act, spent in seconds.items())
            yield Check("Store", name, "ok", f"{store.root_uri}: {took}")


def _servers(stack: StackOf) -> Iterator[Check]:
    for kind, part in (("tracker", stack.tracker), ("registry", stack.registry)):
        uri = part and part.options.get("registry_uri" if kind == "registry" else "tracking_uri")
        if part is not None and part.type == "mlflow" and (uri or kind == "tracker"):
            yield _reached("MLflow", kind, str(uri or "sqlite:///.tailrace/mlflow.db"), stack.root)
    server = os.environ.get("PREFECT_API_URL", "")
    if stack.orchestrator.type == "local":
        yield _reached("Prefect", "PREFECT_API_URL", server, stack.root) if server else _background()


def _background() -> Check:
    """The server that `tailrace server start` has started for this home of Prefect, if there is one."""
    from ..adapters.prefect import background

    name, found = "server in the background", background.find()
    if found is None:
        none = "none runs: each run starts a server of its own, and ends it; `tailrace server start` keeps one"
        return Check("Prefect", name, "absent", none)
    if not found.url:
        return Check("Prefect", name, "ok", f"process {found.pid} is starting")
    if not background.answers(found, _PATIENCE):
        return Check("Prefect", name, "absent", f"{found.ui} does not answer: each run starts a server of its own")
    return Check("Prefect", name, "ok", f"{found.ui} answers, Prefect {found.version}")


def _reached(group: str, name: str, uri: str, root: Path) -> Check:
    """Whether what is at a URI answers: a server, or a database, whose file need not be there yet."""
    from ..routing.variables import mask

    try:
        if uri.startswith(("http://", "https://")):
            _ask(uri)
        else:
            _connect(uri, root)
    except Exception as error:  # whatever a driver raises is the answer
        return Check(group, name, "failed", mask(f"{uri}: {type(error).__name__}: {error}"))
    return Check(group, name, "ok", f"{mask(uri)} can be reached")


def _ask(uri: str) -> None:
    from urllib.request import urlopen

    with urlopen(f"{uri.rstrip('/')}/health", timeout=_PATIENCE) as answer:  # noqa: S310  # http or https, see above
        answer.read(1)


def _connect(uri: str, root: Path) -> None:
    from sqlalchemy import create_engine, make_url

    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        path = root / str(url.database)
        if not path.exists():
            folder = next(folder for folder in path.parents if folder.exists())
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"the folder {folder} cannot be written")
            return
        url = url.set(database=str(path))
    with create_engine(url).connect():
        pass
