from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra huggingface is not installed")

import torch
import transformers

from tailrace import MaterializationError, Model
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from . import made
from .made import digests, digests_of_another_process, loaded_with, saved_in
from .test_torch import same_module

VALUES = made.transformers()
MODELS = ["bert", "llama", "gpt2", "t5"]


def same(one: Any, other: Any) -> bool:
    return (
        same_module(one, other)
        and vars(one.config) == vars(other.config)
        and getattr(one, "generation_config", None) == getattr(other, "generation_config", None)
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same)


def test_what_from_pretrained_would_lose_is_kept() -> None:
    config = VALUES["gpt2"]().config
    model = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").to(torch.bfloat16).train()
    model.transformer.wte.weight.requires_grad = False
    model.transformer.h[0].eval()
    found = check_round_trip(model, equal=same)
    assert found.training
    assert not found.transformer.h[0].training
    assert found.lm_head.weight is found.transformer.wte.weight
    assert found.config._attn_implementation == "eager"


def test_attributes_that_no_configuration_has_are_kept() -> None:
    model = VALUES["gpt2"]()
    model.transformer.drop.p = 0.7
    model.resize_token_embeddings(120)
    found = check_round_trip(model, equal=same)
    assert (found.transformer.drop.p, found.vocab_size, found.config.vocab_size) == (0.7, 120, 120)


@pytest.mark.parametrize("shard", ["20KB", "1GB"])
def test_what_from_pretrained_made_comes_back(shard: str, tmp_path: Path) -> None:
    VALUES["bert"]().save_pretrained(tmp_path / "model", max_shard_size=shard)
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    found = check_round_trip(model, equal=same)
    assert (found.dtype, found.config._name_or_path) == (torch.bfloat16, str(tmp_path / "model"))


def test_weight_norm_in_a_model_is_kept() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (8, 8), "conv_stride": (2, 2), "conv_kernel": (3, 3), "num_feat_extract_layers": 2}
    config = transformers.Wav2Vec2Config(
        **sizes, **convolutions, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2
    )
    model = transformers.Wav2Vec2Model(config).eval()
    sound = torch.ones(1, 100)
    assert torch.equal(restored(model)(sound).last_hidden_state, model(sound).last_hidden_state)


def test_a_model_that_was_saved_by_its_library_comes_back_as_that_left_it(tmp_path: Path) -> None:
    model = transformers.BertModel(transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    model.save_pretrained(tmp_path)
    assert vars(restored(model).config) == vars(model.config)


def test_a_tuple_in_a_configuration_stays_a_tuple() -> None:
    assert restored(transformers.WhisperConfig()).begin_suppress_tokens == (220, 50256)


def test_buffers_that_are_not_weights_are_kept() -> None:
    model = VALUES["llama"]()
    model.model.rotary_emb.inv_freq.fill_(0.5)
    assert restored(model).model.rotary_emb.inv_freq[0] == 0.5


def test_a_model_that_its_configuration_does_not_describe_is_refused() -> None:
    model = VALUES["bert"]()
    model.cls.predictions.decoder = torch.nn.Linear(32, 3)
    check_refused(model, "configuration does not describe it")
    model = VALUES["bert"]()
    model.note = object()
    check_refused(model, "the attribute note of the model")
    model = VALUES["bert"]()
    model.bert.register_forward_hook(lambda *_: None)
    check_refused(model, "hooks")


def test_a_class_of_the_user_is_refused_with_the_way_out() -> None:
    class Own(transformers.BertModel):  # type: ignore[misc]
        pass

    check_refused(
        Own(transformers.BertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=1)), "state_dict()"
    )


def test_the_library_reads_the_folder(tmp_path: Path) -> None:
    model = VALUES["bert"]()
    saved_in(tmp_path / "model", model)
    found = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model", local_files_only=True)
    mine, its = model.state_dict(), found.state_dict()
    assert list(mine) == list(its)
    assert all(torch.equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize("name", ["tokenizer", "slow tokenizer"])
def test_a_tokenizer_comes_back_with_the_same_bytes(name: str) -> None:
    def alike(one: Any, other: Any) -> bool:
        facts = [
            (type(each), each("hello world, hello"), each.get_vocab(), each.special_tokens_map, each.padding_side,
             each.model_max_length, each.name_or_path)
            for each in (one, other)
        ]  # fmt: skip
        return bool(facts[0] == facts[1])

    check_round_trip(VALUES[name](), equal=alike)


def test_what_was_set_on_a_tokenizer_is_kept() -> None:
    tokenizer = VALUES["tokenizer"]()
    tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token = "right", "left", "[UNK]"
    tokenizer.note = "mine"
    found = restored(tokenizer)
    assert (found.padding_side, found.truncation_side, found.pad_token, found.note) == (
        "right",
        "left",
        "[UNK]",
        "mine",
    )
    assert found.init_kwargs == tokenizer.init_kwargs


def _with_a_mask(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    return tokenizer


def _pipeline() -> Any:
    return transformers.pipeline("fill-mask", model=VALUES["bert"](), tokenizer=_with_a_mask(VALUES["tokenizer"]()))


def _with_another_head() -> Any:
    model = VALUES["bert"]()
    model.cls.predictions.decoder = torch.nn.Linear(32, 3)
    return model


REFUSED = {
    "a pipeline": (_pipeline, "pipeline.model"),
    "what a tokenizer returns": (lambda: VALUES["tokenizer"]()("hello"), ".data"),
    "what a model returns": (lambda: VALUES["bert"]()(torch.tensor([[1]])), "dict(...)"),
    "another head than configured": (_with_another_head, "configuration does not describe it"),
}


@pytest.mark.parametrize(("make", "mentions"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_is_refused_with_the_way_out(make: Any, mentions: str) -> None:
    check_refused(make(), mentions)


def test_a_token_that_was_added_is_kept() -> None:
    tokenizer = VALUES["tokenizer"]()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<mine>"]})
    assert restored(tokenizer)("hello <mine>") == tokenizer("hello <mine>")


@pytest.mark.parametrize("name", ["processor", "images"])
def test_a_processor_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=lambda one, other: type(one) is type(other) and str(one) == str(other))


@pytest.mark.parametrize("name", ["config", "generation"])
def test_a_configuration_comes_back_in_every_attribute(name: str) -> None:
    check_round_trip(VALUES[name](), equal=lambda one, other: bool(vars(one) == vars(other)))


def test_a_model_and_its_tokenizer_in_a_dict_come_back() -> None:
    value = {"model": VALUES["bert"](), "tokenizer": VALUES["tokenizer"]()}
    check_round_trip(value, equal=lambda one, other: same(one["model"], other["model"]))


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("transformers") == digests("transformers")


def test_mlflow_runs_a_model(tmp_path: Path) -> None:
    import mlflow.pyfunc

    model = VALUES["bert"]().eval()
    saved_in(tmp_path / "model", model)
    ids = np.array([[1, 2, 3]])
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict({"input_ids": ids})
    assert np.allclose(found, model(torch.from_numpy(ids)).logits.detach().numpy(), atol=1e-6)


def test_the_metadata_are_those_of_the_model(tmp_path: Path) -> None:
    about = saved_in(tmp_path / "model", VALUES["bert"]())[0].metadata
    assert (about["model_type"], about["layers"]["LayerNorm"]) == ("bert", 6)
    assert saved_in(tmp_path / "words", VALUES["tokenizer"]())[0].metadata["vocabulary"] == 4
    assert Model(VALUES["bert"]()).describe()["framework"] == "transformers"


# ---- files of others


def test_code_that_comes_with_a_model_is_never_loaded(tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["tokenizer"]())
    code = b"open('exploded', 'w').close()\nclass Own: pass\n"
    file = tmp_path / "model" / "pretrained" / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {
        "auto_map": {"AutoTokenizer": ["code.Own", "code.Own"]},
        "tokenizer_class": "Own",
    }
    loaded_with(
        tmp_path / "model",
        saved,
        {"pretrained/tokenizer_config.json": json.dumps(config).encode(), "pretrained/code.py": code},
    )
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "changed", [{"_attn_implementation": "somebody/kernel"}, {"sub": {"experts_implementation": "somebody/kernel"}}]
)
def test_kernels_of_the_hub_are_not_loaded(changed: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["bert"]())
    state = json.loads((tmp_path / "model" / "state.json").read_text())
    state["config"]["values"] |= changed
    state["config"]["attention"] = changed.get("_attn_implementation")
    with pytest.raises(MaterializationError, match="code of the Hub"):
        loaded_with(tmp_path / "model", saved, {"state.json": json.dumps(state).encode()})


@pytest.mark.parametrize("attributes", [{"": {"_use_kernels": True}}, {"": {"_modules": {}}}, {"": {"forward": [1]}}])
def test_attributes_that_are_no_scalars_are_not_put(attributes: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["bert"]())
    state = json.loads((tmp_path / "model" / "state.json").read_text()) | {"attributes": attributes}
    with pytest.raises(MaterializationError, match="refused"):
        loaded_with(tmp_path / "model", saved, {"state.json": json.dumps(state).encode()})


@pytest.mark.parametrize(
    "reference",
    ["os:system", "transformers.pipelines.base:Pipeline", "transformers:AutoModel", "transformers_modules.x:Y"],
)
def test_a_class_that_is_no_model_is_not_made(reference: str, tmp_path: Path) -> None:
    from dataclasses import replace

    saved, _ = saved_in(tmp_path / "model", VALUES["bert"]())
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", replace(saved, spec={"kind": "model", "class": reference}), {})


def test_a_tensor_that_is_missing_is_an_error(tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["bert"]())
    state = json.loads((tmp_path / "model" / "state.json").read_text())
    del state["weights by name"]["cls.predictions.bias"]
    with pytest.raises(MaterializationError, match="not stored"):
        loaded_with(tmp_path / "model", saved, {"state.json": json.dumps(state).encode()})
