"""Models and streams of PyTorch, Keras, TensorFlow and Hugging Face, beside the libraries' own calls, as others are.

Layers are as large as a language model's: memory for small tensors is used again within a process, and the library's
second call would be measured beside our first.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import Bench, Row, alternate, row, working_in

from materializers import ROUNDS, Subject, _beside, _of, _saved, _seconds, _stored, _timed

__all__ = ["rows"]

NEEDED = ("torch", "transformers", "keras", "tensorflow")


def rows(bench: Bench) -> Iterator[Row]:
    """Save and load for each kind of model, and for a stream of rows. One row where a framework is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        yield Row("frameworks", note=f"{missing[0]} is not installed")
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with working_in(bench.folder / "frameworks"):
        for subject in SUBJECTS:
            yield from _beside(subject)
        yield from _stream()


def _layers() -> Any:
    from torch import nn

    return nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(3)))


def _dense() -> Any:
    import keras

    return keras.Sequential([keras.Input((4096,)), *(keras.layers.Dense(4096) for _ in range(2))])


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(num_hidden_layers=2))


def _load_bert(path: Path) -> Any:
    """Read too: ``from_pretrained`` maps the file, and its weights are read when they are used."""
    model = _of("transformers", "BertModel.from_pretrained")(path)
    for part in model.parameters():
        part.data = part.data.clone()
    return model


def _save_keras(value: Any, path: Path) -> None:
    path.mkdir()
    value.save(path / "model.keras")


SUBJECTS = (
    Subject(
        "200 MB state dict",
        ("torch",),
        lambda: _layers().state_dict(),
        _of("torch", "save"),
        _of("torch", "load"),
        "torch.save, torch.load",
    ),
    Subject(
        "200 MB state dict, again",
        ("torch",),
        lambda: _layers().state_dict(),
        _of("safetensors.torch", "save_file"),
        lambda path: _of("safetensors.torch", "load")(path.read_bytes()),
        "safetensors' save_file, load of the bytes",
    ),
    Subject(
        "200 MB module",
        ("torch",),
        _layers,
        _of("torch", "save"),
        partial(_of("torch", "load"), weights_only=False),
        "torch.save, torch.load by pickle",
    ),
    Subject(
        "150 MB Hugging Face model",
        ("transformers",),
        _bert,
        lambda value, path: value.save_pretrained(path),
        _load_bert,
        "save_pretrained, from_pretrained and all of it read",
    ),
    Subject(
        "134 MB Keras model",
        ("keras",),
        _dense,
        _save_keras,
        lambda path: _of("keras", "saving.load_model")(path / "model.keras"),
        "save, load_model",
    ),
)


def _stream(count: int = 2500) -> Iterator[Row]:
    """100 MB in elements of 40 KB. The same format has a budget; TensorFlow's own format is shown beside it."""
    import tensorflow as tf

    value = tf.data.Dataset.from_tensor_slices((tf.random.normal((count, 10_000)), tf.range(count)))
    formats = (
        ("TFRecordWriter, TFRecordDataset", _write_records, _read_records, 1.5),
        ("Dataset.save, Dataset.load", _save_stream, _load_stream, None),
    )
    bare = Path("bare")
    with _stored(value) as again:
        for floor, write, read, most in formats:
            own = partial(_seconds, partial(write, value))
            figures, floors = alternate(ROUNDS, partial(_saved, value), own)
            yield row("100 MB tf.data: save", figures, "s", floors, floor, most_ratio=most)
            write(value, bare)
            passes = (partial(_timed, partial(_pass, made)) for made in (again, partial(read, bare)))
            figures, floors = alternate(ROUNDS, *passes)
            yield row("100 MB tf.data: load and one pass", figures, "s", floors, floor, most_ratio=most)
            bare.unlink() if bare.is_file() else shutil.rmtree(bare)


def _write_records(value: Any, path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for parts in value:
            for part in parts:
                writer.write(tf.io.serialize_tensor(part).numpy())


def _read_records(path: Path) -> Any:
    import tensorflow as tf

    kinds = (tf.float32, tf.int32)
    pairs = tf.data.TFRecordDataset(str(path)).batch(2)
    return pairs.map(lambda pair: tuple(tf.io.parse_tensor(pair[place], kind) for place, kind in enumerate(kinds)))


def _save_stream(value: Any, path: Path) -> None:
    value.save(str(path))


def _load_stream(path: Path) -> Any:
    return _of("tensorflow", "data.Dataset.load")(str(path))


def _pass(load: Callable[[], Any]) -> None:
    for _ in load().batch(256):
        pass
