"""What a pipeline is: steps, pipelines, the Plan, artifact types, references, errors. No I/O, nothing third-party."""

from __future__ import annotations

from .assets import (
    Artifact,
    Asset,
    Checkpoint,
    Dataset,
    FeatureSet,
    Metrics,
    Model,
    Parameters,
    Prompt,
    Report,
)
from .errors import TailraceError
from .pipeline import Pipeline, context, pipeline
from .plan import Plan
from .ref import Ref
from .refs import ArtifactRef, Manifest, Route, Run
from .results import RunResult
from .step import Step, step

__all__ = [
    "Artifact",
    "ArtifactRef",
    "Asset",
    "Checkpoint",
    "Dataset",
    "FeatureSet",
    "Manifest",
    "Metrics",
    "Model",
    "Parameters",
    "Pipeline",
    "Plan",
    "Prompt",
    "Ref",
    "Report",
    "Route",
    "Run",
    "RunResult",
    "Step",
    "TailraceError",
    "context",
    "pipeline",
    "step",
]
