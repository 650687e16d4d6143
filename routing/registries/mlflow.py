"""MLflow as the registry of models and prompts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlsplit

from ...core.documents import Prompt
from ...core.errors import DestinationError
from ...core.names import segment
from ...core.refs import ArtifactRef, Manifest, Run
from ..mlflow_backend import MlflowBackend, quiet
from .mlflow_template import template_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["MlflowRegistry"]

_KEY = "tailrace.key"  # the tag by which a version is found again: one word that needs no quoting in a filter
_IS_PROMPT = "tags.`mlflow.prompt.is_prompt` = 'true'"  # without it a search leaves prompts out
_PROMPT_NAME = re.compile(r"[a-zA-Z0-9_.-]+")


class MlflowRegistry:
    """Versions in MLflow's model registry, whose source is the artifact's own files in the artifact store.

    ``registry_uri`` defaults to ``tracking_uri``, and that to ``sqlite:///.tailrace/mlflow.db`` below ``root``.
    ``model_name`` replaces the artifact's name. ``models:/NAME/VERSION`` loads with MLflow's loaders where the
    materializer writes an ``MLmodel`` file among the artifact's; other artifacts are registered as well, and the tag
    ``tailrace.uri`` says what to give to ``tailrace artifacts get``.

    A server refuses sources in local folders. For an artifact there, its files are copied to the tracker's run, and the
    version points at the copy.

    A version of a prompt holds the text itself, as a template of MLflow's. ``prompts:/NAME/VERSION`` loads it.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
        model_name: str | None = None,
        root: Path,
    ) -> None:
        self._backend = MlflowBackend(tracking_uri or registry_uri, registry_uri, root)
        self._model_name = model_name

    def register(
        self, ref: ArtifactRef, manifest: Manifest, *, run: Run, tracker_run: str | None = None
    ) -> tuple[str, str]:
        """The model's name and version; the lowest where processes registered the same at the same time.

        Raises :class:`~tailrace.DestinationError` for a name that MLflow does not take, and when there is nothing at
        the artifact's URI.
        """
        name = self._model_name or manifest.name
        if not name.strip() or set("/:") & set(name):
            raise DestinationError(
                f"MLflow takes no model name with '/' or ':', nor an empty one: {name!r}, of {ref.uri}. Set model_name "
                "in the stack's model registry, or give the Model another name."
            )
        with self._backend.client(f"registering {ref.uri} as {name!r}") as client:
            return _the_one(
                lambda: _versions(client, name, ref),
                create=lambda: self._create(client, name, ref, manifest, run, tracker_run),
                delete=client.delete_model_version,
            )

    def register_prompt(self, prompt: Prompt, ref: ArtifactRef, manifest: Manifest, *, run: Run) -> tuple[str, str]:
        """The prompt's name, which is the artifact's, and version; the lowest, as above.

        Raises :class:`~tailrace.DestinationError` for a name or a prompt that MLflow does not take or would render
        otherwise.
        """
        name = manifest.name
        if not _PROMPT_NAME.fullmatch(name):
            raise DestinationError(
                f"MLflow takes names of prompts with letters (a-z), digits, '_', '-' and '.' only, not {name!r}, of "
                f"{ref.uri}. Give the Prompt another name, or set register: false in the rule for Prompt."
            )
        try:
            template = template_of(prompt)
        except DestinationError as error:
            raise DestinationError(
                f"MLflow would not render the prompt {name!r}, of {ref.uri}, as it is: {error}. Change that, or set "
                "register: false in the rule for Prompt."
            ) from error
        with self._backend.client(f"registering {ref.uri} as the prompt {name!r}") as client:
            return _the_one(
                lambda: _versions(client, name, ref, f"{_IS_PROMPT} AND "),
                create=lambda: _create_prompt(client, name, template, _tags(ref, manifest, run)),
                delete=client.delete_prompt_version,
            )

    def registered(self) -> list[tuple[str, str]]:
        """The URI and content digest of every version that one of our runs has registered."""
        found: list[tuple[str, str]] = []
        with self._backend.client("asking what is registered") as client:
            token = None
            while True:
                page = client.search_model_versions(page_token=token)
                named = ((version.tags.get("tailrace.uri"), version.tags.get("tailrace.digest")) for version in page)
                found += ((uri, digest) for uri, digest in named if uri and digest)
                token = page.token
                if not token:
                    return found

    def _create(
        self, client: MlflowClient, name: str, ref: ArtifactRef, manifest: Manifest, run: Run, tracker_run: str | None
    ) -> None:
        from mlflow.exceptions import MlflowException

        source = self._source(client, ref, manifest, tracker_run)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or client.get_prompt(name) is not None:
                raise
        with quiet():
            client.create_model_version(name, source, run_id=tracker_run, tags=_tags(ref, manifest, run))

    def _source(self, client: MlflowClient, ref: ArtifactRef, manifest: Manifest, tracker_run: str | None) -> str:
        """The URI of a folder that holds the artifact's files, and that the registry accepts."""
        source = f"{ref.uri}/{manifest.content}"
        parts = urlsplit(source)
        if parts.scheme != "file":
            return source
        folder = Path(unquote(parts.path))
        if not folder.is_dir():
            raise DestinationError(f"There is nothing to register at {source}. Run the step again.")
        if not self._backend.registry_uri.startswith("http"):
            return source
        if tracker_run is None:
            raise DestinationError(
                f"The MLflow server at {self._backend.shown} takes no model from the local folder {source}. Put models "
                "in an object store that it reaches, or give the stack an mlflow tracker, whose run will hold a copy."
            )
        place = f"tailrace/{segment(ref.name)}-{ref.id}/{manifest.content}"
        client.log_artifacts(tracker_run, str(folder), place)
        return f"{client.get_run(tracker_run).info.artifact_uri}/{place}"


def _versions(client: MlflowClient, name: str, ref: ArtifactRef, only: str = "") -> list[ModelVersion]:
    found = client.search_model_versions(f"{only}tags.`{_KEY}` = '{_key_of(ref)}'")
    return sorted((item for item in found if item.name == name), key=lambda item: int(item.version))


def _the_one(
    find: Callable[[], list[ModelVersion]], create: Callable[[], None], delete: Callable[[str, str], None]
) -> tuple[str, str]:
    """The name and the version that is found, made if there is none.

    Of several, which processes made at the same time, the lowest stays.
    """
    from mlflow.exceptions import MlflowException

    found = find()
    if not found:
        create()
        found = find()
    first, *duplicates = found
    for version in duplicates:
        try:
            delete(version.name, str(version.version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # its maker deletes it as well
                raise
    return str(first.name), str(first.version)


def _create_prompt(client: MlflowClient, name: str, template: str | list[dict[str, str]], tags: dict[str, str]) -> None:
    """Not by MLflow's ``register_prompt``: that would look for the experiment of this process, and tag all versions."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_prompt(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or client.get_prompt(name) is None:  # but a model
            raise
    with quiet():
        client.create_prompt_version(name, template, tags=tags)


def _tags(ref: ArtifactRef, manifest: Manifest, run: Run) -> dict[str, str]:
    tags = {
        **manifest.tags,
        _KEY: _key_of(ref),
        "tailrace.artifact_id": ref.id,
        "tailrace.digest": ref.digest,
        "tailrace.uri": ref.uri,
        "tailrace.run_id": run.run_id,
        "tailrace.pipeline": run.pipeline,
    }
    return tags if manifest.version is None else {**tags, "tailrace.version": manifest.version}


def _key_of(ref: ArtifactRef) -> str:
    return segment(f"{ref.id}@{ref.digest}")
