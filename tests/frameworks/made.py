"""Values of the frameworks, made on the spot and the same in every process, and the digests of their files.

As a script: ``python made.py digests torch`` prints the digests of one library's values, ``python made.py golden`` adds
golden files that are not there.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tailrace.core.refs import FileEntry
from tailrace.materializers.files import FileReader, FileWriter, digest_file
from tailrace.materializers.registry import Saved, load, save

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
Makers = dict[str, Callable[[], Any]]


def torch() -> Makers:
    import torch
    from torch import nn

    layers = importlib.import_module("torch_layers")

    def seeded(make: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            torch.manual_seed(0)
            return make()

        return made

    def training() -> Any:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "epoch": 3}

    return {
        name: seeded(make)
        for name, make in {
            "tensor": lambda: torch.randn(3, 4),
            "state": lambda: nn.Linear(3, 4).state_dict(),
            "layers": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GRU(4, 5)),
            "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
            "own": layers.Tied,
            "training": training,
        }.items()
    }


def transformers() -> Makers:
    import torch
    import transformers as hf

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99}

    def model(cls: Any, config: Any) -> Callable[[], Any]:
        def made() -> Any:
            torch.manual_seed(0)
            return cls(config)

        return made

    def tokenizer() -> Any:
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "hello": 2, "world": 3}, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        return hf.PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=77, padding_side="left"
        )

    return {
        "bert": model(hf.BertForMaskedLM, hf.BertConfig(**small, intermediate_size=37)),
        "llama": model(hf.LlamaForCausalLM, hf.LlamaConfig(**small, intermediate_size=37)),
        "gpt2": model(hf.GPT2LMHeadModel, hf.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=99, n_positions=64)),
        "t5": model(hf.T5ForConditionalGeneration, hf.T5Config(d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=2)),
        "tokenizer": tokenizer,
        "slow tokenizer": hf.ByT5Tokenizer,
        "processor": lambda: hf.Wav2Vec2Processor(hf.Wav2Vec2FeatureExtractor(feature_size=1), tokenizer()),
        "images": lambda: hf.ViTImageProcessorPil(size={"height": 8, "width": 8}),
        "config": lambda: hf.BertConfig(**small, id2label={0: "a", 1: "b"}),
        "generation": lambda: hf.GenerationConfig(max_new_tokens=3, temperature=0.5),
    }


def datasets() -> Makers:
    import datasets as hf

    def rows() -> Any:
        columns = {"a": [1, 2, 3], "b": ["x", "y", None], "c": [[1.0], [2.0, 3.0], []], "l": [0, 1, 0]}
        features = hf.Features(
            a=hf.Value("int32"),
            b=hf.Value("string"),
            c=hf.List(hf.Value("float32")),
            l=hf.ClassLabel(names=["no", "yes"]),
        )
        return hf.Dataset.from_dict(columns, features=features, split="train")

    return {
        "rows": rows,
        "chosen": lambda: rows().select([2, 0]),
        "format": lambda: rows().with_format("numpy", columns=["a"]),
        "splits": lambda: hf.DatasetDict(train=rows(), test=rows().select([1])),
        "nothing": lambda: hf.Dataset.from_dict({}),
        "arrays": lambda: hf.Dataset.from_dict(
            {"m": [[[1, 2], [3, 4]]]}, features=hf.Features(m=hf.Array2D((2, 2), "float32"))
        ),
    }


def keras() -> Makers:
    import keras
    from keras import layers

    own = importlib.import_module("keras_layers")

    def fitted() -> Any:
        keras.utils.set_random_seed(0)
        first, last = layers.Dense(3, activation="relu", name="dense"), layers.Dense(1, name="dense_1")
        model = keras.Sequential([keras.Input((4,)), first, last], name="small")
        model.compile(keras.optimizers.Adam(name="adam"), "mse", metrics=["mae"])  # other names count up in a process
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        return model

    def shared() -> Any:
        keras.utils.set_random_seed(0)
        start = keras.Input((4,), name="start")
        dense = layers.Dense(4, name="twice", kernel_regularizer="l2")
        return keras.Model(start, layers.Dropout(0.5, name="drop")(dense(dense(start))), name="shared")

    def frozen() -> Any:
        model = fitted()
        model.layers[0].trainable = False
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        model.compile(
            keras.optimizers.SGD(schedule, momentum=0.9), keras.losses.Huber(), metrics=[keras.metrics.AUC(name="auc")]
        )
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        return model

    def registered() -> Any:
        return keras.Sequential(
            [keras.Input((4,)), own.Twice(name="own"), layers.Dense(2, name="d", dtype="bfloat16")], name="r"
        )

    def words() -> Any:
        lookup = layers.StringLookup(vocabulary=["a", "b"], name="words")
        return keras.Sequential([keras.Input((1,), dtype="string", name="text"), lookup], name="lookup")

    return {"fitted": fitted, "shared": shared, "frozen": frozen, "registered": registered, "words": words}


def tensorflow() -> Makers:
    import tensorflow as tf

    slices = tf.data.Dataset.from_tensor_slices

    # Functions with names: TensorFlow reads their source, and of two lambdas in a line it may take the other.
    def more(x: Any, y: Any) -> Any:
        return x + 1, y

    def is_large(x: Any) -> Any:
        return x > 1

    return {
        "tensor": lambda: tf.constant([[1.0, float("nan")]]),
        "bfloat16": lambda: tf.constant([1, 2], tf.bfloat16),
        "text": lambda: tf.constant(["a", "é"]),
        "number": lambda: tf.constant(3, tf.int64),
        "variable": lambda: tf.Variable([[1.0, 2.0]], name="w", trainable=False, shape=tf.TensorShape([None, 2])),
        "range": lambda: tf.data.Dataset.range(5),
        "batches": lambda: slices({"b": [1, 2, 3], "a": ["x", "y", "z"]}).batch(2),
        "nested": lambda: slices(([1, 2], ([3.0, 4.0], ["q", "w"]))).map(more),
        "filtered": lambda: slices([1, 2, 3]).filter(is_large),
    }


# ---- helpers of the tests


def saved_in(folder: Path, value: Any, allow_pickle: str = "never") -> tuple[Saved, dict[str, FileEntry]]:
    folder.mkdir(parents=True, exist_ok=True)
    writer = FileWriter(folder, allow_pickle=allow_pickle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = save(value, writer)
    return saved, {entry.path: entry for entry in writer.finish()}


def entries_of(folder: Path) -> dict[str, FileEntry]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "saved.json"]
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: FileEntry(name, *digest_file(folder / name)) for name in names}


def loaded_with(folder: Path, saved: Saved, changed: Mapping[str, bytes]) -> Any:
    """What is loaded when somebody who can write to the store put other content, and its digests, into the manifest."""
    for name, content in changed.items():
        (folder / name).write_bytes(content)
    return load(saved.materializer, saved.materializer_version, FileReader(folder, entries_of(folder)), saved.spec)


def fresh(library: str) -> None:
    """Keras numbers layers and optimizers as they are made; their names are part of a model."""
    if library == "keras":
        import keras

        keras.utils.clear_session()


def digests(library: str) -> dict[str, dict[str, str]]:
    found = {}
    for name, make in globals()[library]().items():
        fresh(library)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = {path: entry.digest for path, entry in saved_in(Path(folder), make())[1].items()}
    return found


def digests_of_another_process(library: str, **environment: str) -> dict[str, dict[str, str]]:
    """With another hash seed, in another zone."""
    elsewhere = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", **environment}
    command = [sys.executable, __file__, "digests", library]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=elsewhere, check=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


GOLDENS = {
    "torch": ("torch", "own"),
    "torch-training": ("torch", "training"),
    "torch-state": ("torch", "state"),
    "transformers": ("transformers", "gpt2"),
    "tokenizer": ("transformers", "tokenizer"),
    "datasets": ("datasets", "splits"),
    "keras": ("keras", "fitted"),
    "tensorflow": ("tensorflow", "variable"),
    "tf.data": ("tensorflow", "nested"),
}


def golden(name: str) -> Any:
    about = json.loads((GOLDEN / name / "saved.json").read_text())
    files = FileReader(GOLDEN / name, entries_of(GOLDEN / name))
    return load(about["materializer"], about["version"], files, about["spec"])


def add_goldens() -> None:
    for name, (library, kind) in GOLDENS.items():
        if not (GOLDEN / name).exists():
            saved, _ = saved_in(GOLDEN / name, globals()[library]()[kind]())
            about = {"materializer": saved.materializer, "version": saved.materializer_version, "spec": saved.spec}
            (GOLDEN / name / "saved.json").write_text(json.dumps(about) + "\n")


sys.path.insert(0, str(HERE))  # classes of the tests are found by name, as a user's are

if __name__ == "__main__":
    if sys.argv[1] == "golden":
        add_goldens()
    else:
        print(json.dumps(digests(sys.argv[2])))
