"""The reference says what the code says: every public name, signature, key, command and option, and nothing else."""

from __future__ import annotations

import builtins
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest

import tailrace
from tailrace.adapters.handle import RunHandle
from tailrace.core.step import Step

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PYTHON = (REFERENCE / "python.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^\| `(\w[\w.]*)\((.*)\)` \|", PYTHON, re.MULTILINE)


def named(name: str) -> Any:
    """The object of a name in the Python reference."""
    first, *rest = name.split(".")
    found = {"Step": Step, "RunHandle": RunHandle}.get(first) or getattr(tailrace, first)
    for part in rest:
        found = getattr(found, part)
    overloads = typing.get_overloads(found) if inspect.isfunction(found) else []
    return overloads[-1] if overloads else found


def written(call: Any) -> str:
    """The signature as the reference writes it: no annotations, and no ``self``."""
    parts: list[str] = []
    for item in inspect.signature(call).parameters.values():
        if item.name == "self":
            continue
        if item.kind is item.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        prefix = "*" if item.kind is item.VAR_POSITIONAL else "**" if item.kind is item.VAR_KEYWORD else ""
        default = "" if item.default is item.empty else f"={item.default!r}"
        parts.append(f"{prefix}{item.name}{default}")
    return ", ".join(parts)


@pytest.mark.parametrize(("name", "signature"), CALLS, ids=[name for name, _ in CALLS])
def test_a_signature_is_the_real_one(name: str, signature: str) -> None:
    assert signature == written(named(name))


def test_every_public_name_is_in_the_reference() -> None:
    words = set(re.findall(r"`(\w+)", PYTHON))
    assert set(tailrace.__all__) - {"__version__"} <= words


def test_an_error_is_of_the_kind_that_the_reference_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \(`(\w+)`\) \|", PYTHON, re.MULTILINE)
    assert rows
    for name, kind in rows:
        base = getattr(tailrace, kind, None) or getattr(builtins, kind)
        assert issubclass(named(name), base)


# --- tailrace.yaml ----------------------------------------------------------------------------------------------------


def keys(schema: Any) -> set[str]:
    """Every key of the schema of ``tailrace.yaml``: those of the file, the stacks, the components and the rules."""
    found = set()
    for model in [schema, *schema["$defs"].values()]:
        found |= set(model.get("properties", {}))
    return found


def test_the_keys_of_the_configuration_are_those_of_its_schema() -> None:
    from tailrace.routing.schema import json_schema

    text = (REFERENCE / "tailrace-yaml.md").read_text(encoding="utf-8")
    said = set(re.findall(r"`(\w+)`", text))
    assert keys(json_schema()) - {"type"} <= said
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(rows) <= keys(json_schema())


# --- the command line -------------------------------------------------------------------------------------------------


def commands(command: Any, name: str = "tailrace") -> dict[str, set[str]]:
    """The options and arguments of every command."""
    if hasattr(command, "commands"):
        found = {} if name != "tailrace" else {name: flags(command)}
        for sub, inner in command.commands.items():
            found |= commands(inner, f"{name} {sub}")
        return found
    return {name: flags(command)}


def flags(command: Any) -> set[str]:
    """The long options of a command."""
    return {flag for param in command.params for flag in param.opts if flag.startswith("--")}


def test_every_command_and_option_is_in_the_reference_and_no_other() -> None:
    import typer.main

    from tailrace.cli.app import app

    text = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(tailrace[\w ]*?)(?: [A-Z\[][^`]*)?` \| (.*?) \|", text, re.MULTILINE)
    said = {name: set(re.findall(r"--[\w-]+", options)) for name, options in rows}
    shared = {"--stack", "--config", "--json"}
    real = commands(typer.main.get_command(app))
    assert {name: options - shared for name, options in said.items()} == {
        name: options - shared - {"--install-completion", "--show-completion"} for name, options in real.items()
    }


# --- links ------------------------------------------------------------------------------------------------------------


def test_every_link_between_pages_leads_to_a_file() -> None:
    root = REFERENCE.parents[1]
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    links = {
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    }
    assert links
    assert sorted(f"{page}: {link}" for page, link in links if not (page.parent / link).exists()) == []
