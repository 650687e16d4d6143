"""``tailrace.yaml``: checked as a whole, and one stack of it resolved. All problems are reported, with their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..core.errors import ConfigError, Problem, did_you_mean
from .document import Document
from .schema import Catalog, File, Project, RuleModel, StackModel, known_keys
from .stacks import (
    DEFAULT,
    KEEPS_PROMPTS,
    LOCAL,
    Choice,
    Component,
    Rule,
    Stack,
    check_type,
    default_store,
    no_stack,
    storage,
    storage_type,
)
from .variables import Loc, expand, has_variable, mask, mask_options, shown

__all__ = ["ConfigFile"]

_KINDS = {
    "orchestrator": "orchestrator",
    "artifact_store": "store",
    "experiment_tracker": "tracker",
    "model_registry": "registry",
    "model_deployer": "deployer",
}
_YES = {"true", "yes", "on", "y", "t", "1"}  # what pydantic takes for True
_NEEDS = {"register": "model_registry", "deploy": "model_deployer"}


@dataclass(frozen=True)
class ConfigFile:
    """A config file that could be read, and whose content is still to be checked."""

    document: Document

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read a file. Raises :class:`~tailrace.ConfigError` if it is no YAML mapping."""
        return cls(Document.read(path))

    def names(self) -> tuple[str, ...]:
        """The names of the stacks, the built-in one included."""
        plugins = [DEFAULT] if "plugins" in self.document.data else []
        return tuple(dict.fromkeys([*plugins, *_mapping(self.document.at(("stacks",))), LOCAL]))

    def active(self) -> Choice | None:
        """The stack that the file chooses. Raises :class:`~tailrace.ConfigError` if a variable for it is not set."""
        written = self.document.at(("active_stack",))
        if isinstance(written, str):
            problems: list[Problem] = []
            name = expand(
                written, ("active_stack",), lambda loc, text: problems.append(self.document.problem(text, loc))
            )
            if problems:
                raise ConfigError(str(self.document.path), problems)
            return Choice(name, "active_stack", self.document.place(("active_stack",)))
        if "plugins" in self.document.data:
            return Choice(DEFAULT, "active_stack", self.document.place(("plugins",)))
        return None

    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong, in all stacks."""
        return tuple(_View(self, self.names()).problems())

    def stack(self, choice: Choice) -> Stack:
        """The chosen stack, with its variables expanded.

        Raises :class:`~tailrace.ConfigError` with all that is wrong with the form of the file and the content of this
        stack. What another stack lacks (a variable, a plug-in, a store) does not matter.
        """
        view = _View(self, [choice.name])
        problems = view.problems()
        if choice.name not in self.names():
            said = self.document.at(("active_stack",)) if choice.source == "active_stack" else choice.name
            problems.append(Problem(no_stack(said, self.names()), choice.place))
        if problems:
            raise ConfigError(str(self.document.path), list(dict.fromkeys(problems)))
        return view.stack(choice.name)


class _View:
    """A file with the variables of some of its stacks expanded: what is checked, and what a stack is made from."""

    def __init__(self, file: ConfigFile, names: Sequence[str]) -> None:
        self.document = file.document
        self.names = file.names()
        self._missing: list[tuple[Loc, str]] = []
        self._used = [self._where(name) for name in names]
        self._data = self._expanded(self.document.data, ())
        self._model = File()

    def _where(self, name: str) -> Loc:
        return ("plugins",) if name == DEFAULT and "plugins" in self.document.data else ("stacks", name)

    def _concerns(self, loc: Loc) -> bool:
        """Whether a place matters for the stacks that are looked at."""
        return loc[:1] in {("project",), ("catalog",)} or any(loc[: len(used)] == used for used in self._used)

    def _expanded(self, value: Any, loc: Loc) -> Any:
        if isinstance(value, dict) and loc in {(), ("stacks",)}:
            return {key: self._expanded(item, (*loc, key)) for key, item in value.items()}
        return expand(value, loc, lambda *missing: self._missing.append(missing)) if self._concerns(loc) else value

    # --- what is wrong ------------------------------------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """All problems: of the file's form, and of the content of the stacks that are looked at."""
        found = [*self.document.faults, *self._form(), *self._choice()]
        found += [self.document.problem(message, loc) for loc, message in self._missing]
        try:
            self._project_store()
        except ConfigError as error:
            found += error.problems
        for loc in self._used:
            found += self._content(loc)
        return list(dict.fromkeys(found))

    def _form(self) -> Iterator[Problem]:
        errors: Sequence[Any] = ()
        try:
            self._model = File.model_validate(self._data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
        # Outside of the except clause: what is raised for these must not carry pydantic's error, which holds secrets.
        for item in errors:
            loc = tuple(step for step in item["loc"] if not re.fullmatch(r"<.*>|\[key\]", str(step)))
            written = self.document.at(loc)
            if item["type"] == "extra_forbidden":
                message = f"Unknown key {loc[-1]!r}.{did_you_mean(str(loc[-1]), known_keys(item['loc']))}"
            elif item["type"] == "missing":
                loc, message = loc[:-1], f"The key {loc[-1]!r} is missing"
            elif not has_variable(written):
                message = _explain(item, written)
            elif self._concerns(loc) and loc not in dict(self._missing):
                message = f"What {shown(written)} expands to is not allowed here"
            else:
                continue
            yield self.document.problem(message, loc)

    def _choice(self) -> Iterator[Problem]:
        """What is wrong with the names of the stacks."""
        written = self.document.at(("active_stack",))
        if isinstance(written, str) and not has_variable(written) and written not in self.names:
            yield self.document.problem(no_stack(written, self.names), ("active_stack",))
        if "plugins" in self._data and "stacks" in self._data:
            message = "'plugins' is a stack without a name: make it one of the 'stacks', or leave those out"
            yield self.document.problem(message, ("plugins",))

    def _content(self, stack: Loc) -> Iterator[Problem]:
        """What is wrong with the components and rules of a stack. What has not the right form is passed over."""
        places = [(kind, (*stack, key)) for key, kind in _KINDS.items()]
        places += [("store", (*stack, "artifact_stores", name)) for name in self._at(*stack, "artifact_stores")]
        for kind, loc in places:
            yield from self._type(kind, self._at(*loc).get("type"), (*loc, "type"))
        if DEFAULT in self._at(*stack, "artifact_stores") and "artifact_store" in self._at(*stack):
            message = "The default store is 'artifact_store' already; give this one another name"
            yield self.document.problem(message, (*stack, "artifact_stores", DEFAULT))
        stores = self._stores(stack)
        for name, rule in self._at(*stack, "artifact_routing").items():
            yield from self._rule(_mapping(rule), (*stack, "artifact_routing", name), stores)

    def _type(self, kind: str, name: Any, loc: Loc) -> Iterator[Problem]:
        if isinstance(name, str) and not has_variable(name):
            message = check_type(kind, name, shown(self.document.at(loc)))
            if message:
                yield self.document.problem(message, loc)

    def _rule(self, rule: dict[str, Any], loc: Loc, stores: dict[str, str]) -> Iterator[Problem]:
        store = rule.get("store")
        if isinstance(store, str) and not has_variable(store) and store not in stores:
            written = shown(self.document.at((*loc, "store")))
            yield self.document.problem(f"There is no store {written}.{did_you_mean(store, stores)}", (*loc, "store"))
        kind = str(loc[-1])
        for key, component in _NEEDS.items():
            if str(rule.get(key)).lower() not in _YES:
                continue
            prompt = (kind, key) == ("Prompt", "register")
            if kind not in {"Model", DEFAULT} and "." not in kind and not prompt:
                kinds = "models and prompts" if key == "register" else "models"
                yield self.document.problem(f"'{key}' is for {kinds}, and {kind} is none", (*loc, key))
            elif prompt and self._at(*loc[:-2], "experiment_tracker").get("type") in KEEPS_PROMPTS:
                continue
            elif not self._at(*loc[:-2]).get(component):
                message = f"'{key}: true' needs a {component}, and this stack has none"
                yield self.document.problem(message, (*loc, key))

    def _at(self, *loc: str | int) -> dict[str, Any]:
        """The mapping at a place, expanded; an empty one if there is none."""
        here: Any = self._data
        for step in loc:
            here = _mapping(here).get(str(step))
        return _mapping(here)

    def _stores(self, stack: Loc) -> dict[str, str]:
        """The names by which rules may call the stores of a stack, and the stores' own.

        Its type is another name of the default store, the one that is written: what the environment puts in its place
        makes no rule wrong.
        """
        named = self._at(*stack, "artifact_stores")
        written = self._at(*stack, "artifact_store") or _mapping(named.get(DEFAULT))
        storage = self._at("project").get("default_storage")
        kind = written.get("type") or (storage_type(storage) if isinstance(storage, str) else LOCAL)
        return {str(kind): DEFAULT, DEFAULT: DEFAULT, **{name: name for name in named}}

    # --- the stack ----------------------------------------------------------------------------------------------------

    def stack(self, name: str) -> Stack:
        """A stack of a file without problems."""
        loc, file = self._where(name), self._model
        written = file.plugins if loc == ("plugins",) else (file.stacks or {}).get(name)
        model, project, catalog = written or StackModel(), file.project or Project(), file.catalog or Catalog()
        part = {
            key: self._component(component, (*loc, key))
            for key in _KINDS
            if (component := getattr(model, key)) is not None
        }
        stores = {
            key: self._component(store, (*loc, "artifact_stores", key))
            for key, store in (model.artifact_stores or {}).items()
        }
        default = default_store(part.get("artifact_store") or stores.get(DEFAULT), self._project_store())
        names = self._stores(loc)
        return Stack(
            name=name,
            project=project.name or "default",
            root=self.document.path.parent,
            source=self.document.path,
            orchestrator=part.get("orchestrator") or Component("local"),
            stores={**stores, DEFAULT: default},
            tracker=part.get("experiment_tracker"),
            registry=part.get("model_registry"),
            deployer=part.get("model_deployer"),
            rules={key: _rule(rule, names) for key, rule in (model.artifact_routing or {}).items() if rule},
            allow_pickle=model.allow_pickle or "never",
            catalog_url=catalog.url,
            catalog_shown=catalog.url and mask(str(self.document.at(("catalog", "url")))),
        )

    def _component(self, model: BaseModel, loc: Loc) -> Component:
        options = model.model_dump(exclude_none=True)
        defaults = {key: value for key, value in options.items() if key not in model.model_fields_set}
        masked = mask_options({**defaults, **_mapping(self.document.at(loc))})
        del masked["type"]
        return Component(options.pop("type"), options, self.document.place(loc), masked)

    def _project_store(self) -> Component | None:
        text, loc = self._at("project").get("default_storage"), ("project", "default_storage")
        if not isinstance(text, str) or has_variable(text):
            return None
        return storage(text, self.document.place(loc), str(self.document.at(loc)))


def _rule(model: RuleModel, stores: dict[str, str]) -> Rule:
    """The rule, with the store's own name."""
    said = model.model_dump(by_alias=True, exclude_none=True)
    return Rule(**{**said, **({"store": stores[said["store"]]} if "store" in said else {})})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _explain(error: Any, written: Any) -> str:
    """What pydantic found, in the words of the file."""
    found = shown(written)
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        if allowed:
            return f"{found} is not allowed here.{did_you_mean(str(written), allowed)}"
    if error["type"] == "string_type":
        return f"Expected text, not {found}; what is meant as text goes in quotes"
    if error["type"] in {"model_type", "dict_type", "model_attributes_type"}:
        return f"Expected a mapping (key: value), not {found}"
    return f"{found} is not allowed here: {error['msg'][:1].lower()}{error['msg'][1:]}"
