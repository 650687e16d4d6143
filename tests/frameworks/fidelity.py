"""The fidelity matrix of the frameworks, as a page of its own: their tests run where they are installed.

python -m tests.frameworks.fidelity    # writes docs/reference/fidelity-frameworks.md
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tailrace import MaterializationError, PickleNotAllowed
from tailrace.materializers.testing import check_round_trip

from . import made, test_datasets, test_keras, test_tensorflow, test_torch, test_transformers

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "fidelity-frameworks.md"

_HEAD = """# Fidelity: PyTorch, Keras, TensorFlow, Hugging Face

As the [fidelity](fidelity.md) of the other libraries, which explains the words. Each case was saved and loaded to write
this page, by `python -m tests.frameworks.fidelity`, and a test holds it to what the code does.

What is left out, on purpose: gradients (as `torch.save` does) and that a module was compiled; the device, as everything
comes to the CPU; the running state of Keras metrics, which each epoch resets; how a `tf.data` dataset came about, its
options and the order of a shuffle, which is the one of the run that saved it. Pictures and sounds that a Hugging Face
dataset has by path are stored with it. Two names of one TensorFlow variable become two variables.
"""

Cases = dict[str, tuple[Callable[[], Any], Callable[[Any, Any], bool]]]


def sections() -> Mapping[str, Cases]:
    """By library the cases: what makes the value, and when two of them are the same."""
    return {
        "PyTorch": _torch(),
        "Keras": _cases(made.keras(), test_keras.same, words=_alike) | _cases(test_keras.REFUSED, _alike),
        "TensorFlow": _tensorflow(),
        "Hugging Face models": _transformers(),
        "Hugging Face datasets": _cases(made.datasets(), test_datasets.same) | _cases(test_datasets.REFUSED, _alike),
    }


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other)


def _cases(makers: Mapping[str, Any], same: Any, **others: Any) -> Cases:
    """``makers`` are functions, or pairs of one and of what its refusal mentions."""
    made_by = {name: make[0] if isinstance(make, tuple) else make for name, make in makers.items()}
    return {name: (make, others.get(name, same)) for name, make in made_by.items()}


def _torch() -> Cases:
    import torch

    tensors = {f"a tensor of {dtype}": partial(torch.zeros, 2, dtype=dtype) for dtype in test_torch.DTYPES}
    sparse = {f"{layout}": partial(torch.eye(2).to_sparse, layout=layout) for layout in test_torch.LAYOUTS}
    modules = {f"a module: {name}": made.torch()[name] for name in ("layers", "transformer", "own")}
    together = {f"a dict: {name}": made.torch()[name] for name in ("state", "training")}
    return {
        **_cases(tensors, test_torch.same),
        **_cases(sparse, lambda one, other: bool(one.layout == other.layout)),
        **_cases(modules, test_torch.same_module),
        **_cases(together, lambda one, other: list(one) == list(other)),
        **_cases(
            {f"a schedule: {name}": partial(_scheduled, rule) for name, rule in test_torch.SCHEDULES.items()}, _alike
        ),
        **_cases(test_torch.REFUSED_VALUES, _alike),
        **_cases(test_torch.REFUSED, _alike),
    }


def _scheduled(rule: Callable[[Any], Any]) -> Any:
    import torch

    return rule(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))


def _tensorflow() -> Cases:
    values = made.tensorflow()
    streams = {name: make for name, make in values.items() if name in test_tensorflow.STREAMS}
    return {
        **_cases({name: make for name, make in values.items() if name not in streams}, test_tensorflow.same),
        **_cases({f"a dataset: {name}": make for name, make in streams.items()}, test_tensorflow.same_stream),
        **_cases(test_tensorflow.PARTED, lambda one, other: test_tensorflow.parts(one) == test_tensorflow.parts(other)),
        **_cases(test_tensorflow.REFUSED, _alike),
    }


def _transformers() -> Cases:
    values = made.transformers()
    models = {name: values.pop(name) for name in test_transformers.MODELS}
    return {
        **_cases(models, test_transformers.same),
        **_cases(values, _alike),
        **_cases(test_transformers.REFUSED, _alike),
    }


def page() -> str:
    """The page, from every case tried now."""
    parts = [_HEAD]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library, cases in sections().items():
            rows = [(name, _outcome(make(), same)) for name, (make, same) in cases.items()]
            counts = {kind: sum(how == kind for _, how in rows) for kind in ("exact", "refused", "policy")}
            said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            parts.append(f"\n## {library}\n\n{len(rows)} cases: {said}.\n\n| case | |\n|---|---|\n")
            parts += [f"| {name} | {how} |\n" for name, how in rows]
    return "".join(parts)


def _outcome(value: Any, same: Callable[[Any, Any], bool]) -> str:
    try:
        check_round_trip(value, equal=same)
    except PickleNotAllowed:
        return "policy"
    except MaterializationError:
        return "refused"
    return "exact"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
