"""Tailrace carries what a step returns to where it belongs, whichever engine turned the wheel.

The public names, each imported when it is first used, so that ``import tailrace`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    ".core": (
        "Artifact ArtifactRef Asset Checkpoint Dataset FeatureSet Metrics Model Parameters Pipeline Prompt Ref "
        "Report RunResult TailraceError context pipeline step"
    ),
    ".core.errors": (
        "ArtifactNotFound AssetError ConfigError DestinationError IntegrityError InvalidKey LoadError "
        "MaterializationError MissingExtra PickleNotAllowed PipelineError RunConflict RunNotFound StepFailed "
        "StepSkipped StepTimeout StoreError"
    ),
    ".core.load": "load_pipeline",
    ".stores.base": "ArtifactStore",
    ".stores.files": "FileRef",
    ".stores.local": "LocalArtifactStore",
    ".stores.memory": "MemoryArtifactStore",
    ".stores.s3": "S3ArtifactStore",
    ".stores.gcs": "GCSArtifactStore",
    ".stores.azure": "AzureArtifactStore",
    ".stores.build": "build_artifact_store",
    ".materializers.registry": "materializer_for",
    ".routing.stacks": "use_stack",
    ".adapters.handle": "current_run start_run",
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names.split()}

if TYPE_CHECKING:
    from .adapters.handle import current_run as current_run
    from .adapters.handle import start_run as start_run
    from .core import Artifact as Artifact
    from .core import ArtifactRef as ArtifactRef
    from .core import Asset as Asset
    from .core import Checkpoint as Checkpoint
    from .core import Dataset as Dataset
    from .core import FeatureSet as FeatureSet
    from .core import Metrics as Metrics
    from .core import Model as Model
    from .core import Parameters as Parameters
    from .core import Pipeline as Pipeline
    from .core import Prompt as Prompt
    from .core import Ref as Ref
    from .core import Report as Report
    from .core import RunResult as RunResult
    from .core import TailraceError as TailraceError
    from .core import context as context
    from .core import pipeline as pipeline
    from .core import step as step
    from .core.errors import ArtifactNotFound as ArtifactNotFound
    from .core.errors import AssetError as AssetError
    from .core.errors import ConfigError as ConfigError
    from .core.errors import DestinationError as DestinationError
    from .core.errors import IntegrityError as IntegrityError
    from .core.errors import InvalidKey as InvalidKey
    from .core.errors import LoadError as LoadError
    from .core.errors import MaterializationError as MaterializationError
    from .core.errors import MissingExtra as MissingExtra
    from .core.errors import PickleNotAllowed as PickleNotAllowed
    from .core.errors import PipelineError as PipelineError
    from .core.errors import RunConflict as RunConflict
    from .core.errors import RunNotFound as RunNotFound
    from .core.errors import StepFailed as StepFailed
    from .core.errors import StepSkipped as StepSkipped
    from .core.errors import StepTimeout as StepTimeout
    from .core.errors import StoreError as StoreError
    from .core.load import load_pipeline as load_pipeline
    from .materializers.registry import materializer_for as materializer_for
    from .routing.stacks import use_stack as use_stack
    from .stores.azure import AzureArtifactStore as AzureArtifactStore
    from .stores.base import ArtifactStore as ArtifactStore
    from .stores.build import build_artifact_store as build_artifact_store
    from .stores.files import FileRef as FileRef
    from .stores.gcs import GCSArtifactStore as GCSArtifactStore
    from .stores.local import LocalArtifactStore as LocalArtifactStore
    from .stores.memory import MemoryArtifactStore as MemoryArtifactStore
    from .stores.s3 import S3ArtifactStore as S3ArtifactStore

__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
