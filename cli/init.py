"""``tailrace init``: a configuration and a first pipeline, to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ConfigError, Problem

__all__ = ["init"]

_TEMPLATES = Path(__file__).with_name("templates")


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a commented tailrace.yaml, its schema for editors, and a first pipeline.

    Without --force nothing that is there is replaced: then nothing is written at all.
    """
    from ..routing.schema import json_schema
    from .show import console

    name = json.dumps(directory.resolve().name or "default", ensure_ascii=False)  # JSON's quotes are YAML's too
    files = {
        directory / "tailrace.yaml": _template("tailrace.yaml").replace("$project", name, 1),
        directory / ".tailrace" / "tailrace.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        directory / "flows" / "hello.py": _template("hello.py"),
    }
    # The schema is ours, and the same for everybody: a newer one replaces it.
    taken = [path for path in files if path.exists() and path.suffix != ".json"]
    if taken and not force:
        problems = [Problem("It is there already; --force replaces it", str(path)) for path in taken]
        raise ConfigError("Nothing was written", problems)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    out = console()
    for path in files:
        out.print(f"wrote {path}")
    there = "" if directory.resolve() == Path.cwd() else f"cd {directory} && "
    out.print(f"\nNext: {there}tailrace explain hello\n      {there}tailrace run hello")


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
