"""What may stand in ``tailrace.yaml``, as pydantic models: for validation, and for the JSON Schema for editors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ..core.errors import did_you_mean
from ..core.forms import Form
from .stacks import BUILT_IN, DEFAULT, LOCAL_PATH
from .templates import PLACEHOLDERS, check_template

__all__ = ["File", "StackModel", "json_schema", "known_keys"]

ARTIFACT_TYPES = (
    "Model",
    "Dataset",
    "Metrics",
    "Parameters",
    "FeatureSet",
    "Report",
    "Artifact",
    "Prompt",
    "Checkpoint",
    "Asset",
)
PLAIN_TYPES = ("bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple")

_ONCE = "Whether equal files are stored once; default: false."
_QUALIFIED = r"^[^\W\d]\w*(\.[^\W\d]\w*)+$"


class _Strict(BaseModel):
    # What a person wrote may be a secret, so pydantic never prints it.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


# --- components -------------------------------------------------------------------------------------------------------


class Plugged(BaseModel):
    """A component of a plug-in: its options are the plug-in's business."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, defer_build=True)
    type: str


class LocalStore(_Strict):
    """Artifacts in a folder of this machine."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: schema["properties"].update(
            base_path={"type": "string", "description": "Another name of path."}
        )
    )
    type: Literal["local"]
    path: str = Field(
        default=LOCAL_PATH,
        validation_alias=AliasChoices("path", "base_path"),
        description="The folder; a relative one is relative to this file's.",
    )
    durable: bool = Field(default=True, description="Whether what is committed has to survive a power cut (fsync).")
    deduplicate: bool | None = Field(default=None, description=_ONCE)


class MemoryStore(_Strict):
    """Artifacts in the memory of the process; they end with it."""

    type: Literal["memory"]
    bucket: str = Field(default=DEFAULT, description="Stores of one bucket share their artifacts.")
    deduplicate: bool | None = Field(default=None, description=_ONCE)


class _Bucket(_Strict):
    bucket: str = Field(min_length=3, description="Its name; on Azure the container's.")
    prefix: str = Field(default="tailrace", description="The folder below which everything is; '' for none.")
    endpoint_url: str | None = Field(
        default=None, description="Of a compatible server or an emulator. Credentials come from the environment."
    )
    retries: int = Field(
        default=5, ge=0, le=100, description="How often a request that failed for a passing reason is repeated."
    )
    concurrency: int = Field(default=16, ge=1, le=256, description="How many requests are under way at once.")
    timeout: float = Field(default=60, ge=0.1, le=3600, description="Seconds without an answer, until one is repeated.")
    deduplicate: bool | None = Field(default=None, description=_ONCE)


class S3Store(_Bucket):
    """Artifacts in an S3 bucket, or in one of a compatible server."""

    type: Literal["s3"]
    region: str | None = Field(default=None, description="Default: that of the environment or the profile.")


class GcsStore(_Bucket):
    """Artifacts in a bucket of Google Cloud Storage."""

    type: Literal["gcs"]
    project: str | None = Field(default=None, description="Default: that of the credentials.")


class AzureStore(_Bucket):
    """Artifacts in a container of Azure Blob Storage."""

    type: Literal["azure"]
    account: str | None = Field(default=None, description="Default: AZURE_STORAGE_ACCOUNT_NAME.")


class LocalOrchestrator(_Strict):
    """The Prefect engine, in this process."""

    type: Literal["local"]
    task_runner: Literal["threads", "processes", "dask"] = Field(
        default="threads", description="Where the steps run; dask needs the extra of that name."
    )
    max_workers: int | None = Field(default=None, ge=1, description="How many steps run at once.")
    address: str | None = Field(
        default=None, description="Of a Dask cluster's scheduler. Default: a cluster for the run."
    )


class InlineOrchestrator(_Strict):
    """No engine: the steps run one after the other in this process."""

    type: Literal["inline"]


class AirflowOrchestrator(_Strict):
    """Airflow in this process, on a home that is thrown away: what a DAG of the pipeline does, without a scheduler."""

    type: Literal["airflow"]


class MlflowTracker(_Strict):
    """MLflow's tracking."""

    type: Literal["mlflow"]
    tracking_uri: str | None = Field(
        default=None, description="Of a server or database; default: SQLite below .tailrace."
    )
    experiment_name: str | None = Field(default=None, description="Default: the project's name.")


class MlflowRegistry(_Strict):
    """MLflow's registry of models and prompts."""

    type: Literal["mlflow"]
    registry_uri: str | None = Field(default=None, description="Default: the tracking URI.")
    tracking_uri: str | None = Field(default=None, description="Default: that of the stack's experiment tracker.")
    model_name: str | None = Field(
        default=None, description="The registered name of every model. Default: the model's own."
    )


def _tag(kind: str) -> Callable[[Any], str]:
    """Chooses the model of a component by its type. The tags' brackets keep them apart from keys in error locations."""

    def tag(value: Any) -> str:
        name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return f"<{name}>" if name in BUILT_IN[kind] else "<plug-in>"

    return tag


def _plugged(kind: str) -> Any:
    """The JSON Schema of any type that is not built in."""
    known = BUILT_IN[kind]
    name: dict[str, Any] = {
        "type": "string",
        "description": f"Built in: {', '.join(known) or 'none'}. Plug-ins add more.",
    }
    if known:
        name["not"] = {"enum": list(known)}  # else a mistake in a built-in component would pass as a plug-in's
    return WithJsonSchema({"type": "object", "properties": {"type": name}, "required": ["type"]})


_PlugIn = Tag("<plug-in>")
Store = Annotated[
    Annotated[LocalStore, Tag("<local>")]
    | Annotated[MemoryStore, Tag("<memory>")]
    | Annotated[S3Store, Tag("<s3>")]
    | Annotated[GcsStore, Tag("<gcs>")]
    | Annotated[AzureStore, Tag("<azure>")]
    | Annotated[Plugged, _PlugIn, _plugged("store")],
    Discriminator(_tag("store")),
]
Orchestrator = Annotated[
    Annotated[LocalOrchestrator, Tag("<local>")]
    | Annotated[InlineOrchestrator, Tag("<inline>")]
    | Annotated[AirflowOrchestrator, Tag("<airflow>")]
    | Annotated[Plugged, _PlugIn, _plugged("orchestrator")],
    Discriminator(_tag("orchestrator")),
]
Tracker = Annotated[
    Annotated[MlflowTracker, Tag("<mlflow>")] | Annotated[Plugged, _PlugIn, _plugged("tracker")],
    Discriminator(_tag("tracker")),
]
Registry = Annotated[
    Annotated[MlflowRegistry, Tag("<mlflow>")] | Annotated[Plugged, _PlugIn, _plugged("registry")],
    Discriminator(_tag("registry")),
]
Deployer = Annotated[Plugged, _plugged("deployer")]


# --- rules ------------------------------------------------------------------------------------------------------------


def _sound_template(template: str) -> str:
    problems = check_template(template)
    if problems:
        raise ValueError(" ".join(problems))
    return template


def _routable(name: str) -> str:
    known = (*ARTIFACT_TYPES, *PLAIN_TYPES, DEFAULT)
    if name not in known and not re.match(_QUALIFIED, name):
        raise ValueError(
            f"{name!r} is no artifact type.{did_you_mean(name, known)}"
            " A class of a library goes by its full name, as in 'pandas.DataFrame'."
        )
    return name


class RuleModel(_Strict):
    """Where the outputs of one type go. What is left out comes from the default rule, then from what is built in."""

    store: str | None = Field(
        default=None, description="A name in artifact_stores, 'default', or the default store's type."
    )
    path: Annotated[str, AfterValidator(_sound_template)] | None = Field(
        default=None,
        description=f"Where in the store. Placeholders: {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}.",
    )
    register_: bool | None = Field(
        default=None, alias="register", description="Whether the registry gets it: for models and prompts."
    )
    deploy: bool | None = Field(default=None, description="Whether it may be deployed, under the deploy_condition.")
    deploy_condition: Literal["manual", "auto", "on_approval"] | None = Field(
        default=None,
        description="manual: by command. auto: when every metric is good enough. on_approval: when approved.",
    )
    deploy_min_metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = Field(
        default=None, description="The least value of each metric for an automatic deployment."
    )
    endpoint_name: str | None = Field(default=None, description="The endpoint to deploy to.")
    log_to_tracker: bool | None = Field(default=None, description="Whether the experiment tracker gets it.")
    on_error: Literal["fail", "warn"] | None = Field(
        default=None, description="What a failing destination does to the step. Default: fail."
    )
    format: Literal["parquet", "arrow", "csv", "jsonl"] | None = Field(
        default=None, description="The file format of tables. Default: the best for the value, mostly parquet."
    )
    compression: str | None = Field(
        default=None,
        description="Of tables in parquet, and in arrow (which has no snappy): zstd, snappy, lz4, none; zstd may have "
        "a level. Default: the materializer's.",
        examples=["zstd", "zstd:9", "snappy", "lz4", "none"],
    )

    @model_validator(mode="after")
    def _sound_form(self) -> Self:
        problem = Form(self.format, self.compression).problem()
        if problem:
            raise ValueError(problem)
        return self


def _spell_out(schema: JsonSchemaValue) -> None:
    """Name the artifact types, so that editors offer them and mark what is none."""
    rule = schema.pop("additionalProperties")
    schema["properties"] = dict.fromkeys((*ARTIFACT_TYPES, *PLAIN_TYPES, DEFAULT), rule)
    schema["patternProperties"] = {r"^[^.]+(\.[^.]+)+$": rule}
    schema["additionalProperties"] = False


Routing = Annotated[
    dict[Annotated[str, AfterValidator(_routable)], RuleModel | None], Field(json_schema_extra=_spell_out)
]


# --- the file ---------------------------------------------------------------------------------------------------------


class StackModel(_Strict):
    """A set of destinations, and the rules that say what goes where."""

    orchestrator: Orchestrator | None = Field(default=None, description="What runs the steps. Default: local.")
    artifact_store: Store | None = Field(default=None, description="The default store. Default: below .tailrace.")
    artifact_stores: dict[str, Store] | None = Field(
        default=None, description="Further stores, by the name that rules use."
    )
    experiment_tracker: Tracker | None = Field(
        default=None,
        description="Gets Metrics and Parameters; and Prompts, if it keeps them and the registry does not.",
    )
    model_registry: Registry | None = Field(default=None, description="Gets Models and Prompts.")
    model_deployer: Deployer | None = Field(default=None, description="Serves Models.")
    artifact_routing: Routing | None = Field(default=None, description="Rules by artifact type, and a default rule.")
    allow_pickle: Literal["never", "fallback", "always"] | None = Field(
        default=None, description="Whether formats that execute code on loading may be used. Default: never."
    )


class Project(_Strict):
    """What all stacks have in common."""

    name: str | None = Field(default=None, description="The first folder of every path. Default: default.")
    default_storage: str | None = Field(default=None, description="Path or URI of the store of stacks that name none.")


class Catalog(_Strict):
    """The index of what exists."""

    url: str | None = Field(default=None, description="The database. Default: SQLite below .tailrace.")


class File(_Strict):
    """The configuration of Tailrace: what the code returns goes where this file says."""

    version: Literal[1] | None = Field(default=None, description="Of this format.")
    project: Project | None = None
    catalog: Catalog | None = None
    plugins: StackModel | None = Field(default=None, description="One stack, named default; instead of stacks.")
    stacks: dict[str, StackModel | None] | None = Field(default=None, description="Stacks by name.")
    active_stack: str | None = Field(default=None, description="The stack of runs that name none. Default: local.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not dict:
        for part in get_args(annotation):
            yield from _models(part)


def known_keys(loc: tuple[str | int, ...]) -> set[str]:
    """The keys that may stand where an unknown one was found; ``loc`` is pydantic's location of it."""
    here: list[Any] = [File]
    for step in loc[:-1]:
        models = [model for annotation in here for model in _models(annotation)]
        tagged = [model for model in models if f"<{_built_in(model)}>" == step]
        fields = [info.annotation for model in models for name, info in model.model_fields.items() if name == step]
        here = tagged or fields or [value for annotation in here for value in _values(annotation)]
    models = [model for annotation in here for model in _models(annotation)]
    return {info.alias or name for model in models for name, info in model.model_fields.items()}


def _built_in(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("type")
    return next(iter(get_args(kind.annotation)), None) if kind else None


def _values(annotation: Any) -> Iterator[Any]:
    """The annotations of the values of the mappings that an annotation allows."""
    if get_origin(annotation) is dict:
        yield get_args(annotation)[1]
    else:
        for part in get_args(annotation):
            yield from _values(part)


# --- for editors ------------------------------------------------------------------------------------------------------


class _Generator(GenerateJsonSchema):
    """Allows a variable wherever a value of a fixed form is wanted, and leaves out titles that repeat the key."""

    _variable: ClassVar = {"type": "string", "pattern": r"\$\{[A-Za-z_]\w*(:-.*)?\}"}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return {"anyOf": [super().bool_schema(schema), self._variable]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), self._variable]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        plain = super().literal_schema(schema)
        return plain if "const" in plain else {"anyOf": [plain, self._variable]}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``tailrace.yaml``, as it is shipped beside this module."""
    schema = File.model_json_schema(schema_generator=_Generator)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "tailrace.yaml"}
