from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils import data  # noqa: E402

from tailrace import MaterializationError, Model  # noqa: E402
from tailrace.materializers.testing import check_refused, check_round_trip, restored  # noqa: E402

from . import made  # noqa: E402
from .made import digests, digests_of_another_process, loaded_with, saved_in  # noqa: E402

VALUES = made.torch()
layers = __import__("torch_layers")

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]


def same(one: Any, other: Any) -> bool:
    """Type, dtype, shape, strides of what fills its memory, flags, and every bit."""
    dense = (
        one.layout is torch.strided
        and one.numel()
        and one.untyped_storage().nbytes() == one.numel() * one.element_size()
    )
    return (
        type(one) is type(other)
        and (one.dtype, one.shape, one.layout, one.requires_grad)
        == (other.dtype, other.shape, other.layout, other.requires_grad)
        and (not dense or one.is_contiguous() == other.is_contiguous())
        and (not dense or one.is_contiguous() or one.stride() == other.stride())
        and octets(one) == octets(other)
        and list(vars(one)) == list(vars(other))
    )


def octets(tensor: Any) -> bytes:
    flat = tensor.detach().contiguous().clone(memory_format=torch.contiguous_format).as_strided((tensor.numel(),), (1,))
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def same_module(one: Any, other: Any) -> bool:
    mine, its = (dict([*each.named_parameters(), *each.named_buffers()]) for each in (one, other))
    modes = ({name: (type(part), part.training) for name, part in each.named_modules()} for each in (one, other))
    return list(mine) == list(its) and all(same(mine[name], its[name]) for name in mine) and next(modes) == next(modes)


# ---- tensors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_of_every_dtype_comes_back_in_every_bit(dtype: Any) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    for value in (tensor, tensor.T, tensor[0, 1], tensor[:0], tensor[:, ::2], tensor[0, ::2][:1]):
        check_round_trip(value, equal=same)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), max_size=4), st.randoms(), st.sampled_from(DTYPES))
def test_any_permutation_of_any_shape_comes_back_with_its_strides(shape: list[int], random: Any, dtype: Any) -> None:
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    check_round_trip(tensor.permute(random.sample(range(len(shape)), len(shape))), equal=same)


@pytest.mark.parametrize("before", range(1, 18))
def test_memory_lies_as_pytorch_needs_it(before: int) -> None:
    base = torch.arange(6.0).to(torch.complex128)
    found = restored([torch.ones(before, dtype=torch.uint8), base.clone(), base[1:5], base[:3]])
    assert [tensor.data_ptr() % tensor.element_size() for tensor in found] == [0] * 4
    assert torch.equal(found[1].clone(), base)


def test_bits_of_a_nan_and_the_sign_of_a_zero_are_kept() -> None:
    check_round_trip(torch.tensor([float("nan"), -0.0, struct.unpack("f", b"\1\0\xc0\x7f")[0]]), equal=same)


def test_channels_last_stays_channels_last() -> None:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert restored(images).is_contiguous(memory_format=torch.channels_last)


def test_a_parameter_keeps_its_type_its_flag_and_its_attributes() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    frozen.note = ("plain", 1)
    found = check_round_trip(frozen, equal=same)
    assert (type(found), found.requires_grad, found.note) == (nn.Parameter, False, ("plain", 1))
    assert restored(torch.ones(2, requires_grad=True)).requires_grad


def test_of_a_view_only_the_view_is_stored(tmp_path: Path) -> None:
    _, files = saved_in(tmp_path / "view", torch.arange(1_000_000)[10:20])
    assert sum(entry.size for entry in files.values()) < 1000


def test_views_of_one_memory_share_it_again() -> None:
    base = torch.arange(10.0)
    first, second = restored([base[:6], base[4:]])
    first[4] = 99
    assert second[0] == 99


def test_views_of_other_dtypes_share_memory_again() -> None:
    numbers = torch.arange(4, dtype=torch.int32)
    first, second = restored([numbers, numbers.view(torch.uint8)])
    first[0] = 7
    assert second[0] == 7


def test_equal_tensors_that_were_two_stay_two() -> None:
    first, second = restored([torch.ones(2), torch.ones(2)])
    first[0] = 5
    assert second[0] == 1


LAYOUTS = [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_tensor_keeps_its_layout(layout: Any) -> None:
    dense = torch.tensor([[0.0, 1], [2, 0]])
    found = restored(dense.to_sparse(layout=layout))
    assert found.layout == layout
    assert torch.equal(found.to_dense(), dense)


def test_duplicate_entries_of_a_sparse_tensor_stay_two() -> None:
    found = restored(torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (3,)))
    assert not found.is_coalesced()
    assert found._nnz() == 2


def test_sizes_dtypes_and_devices_in_a_dict_come_back() -> None:
    value = {"size": torch.Size([2, 3]), "dtype": torch.bfloat16, "device": torch.device("cuda:1")}
    found = check_round_trip(value, equal=lambda one, other: bool(one == other))
    assert type(found["size"]) is torch.Size


REFUSED_VALUES = {
    "a result that gradients flow through": (lambda: torch.ones(2, requires_grad=True) * 2, "detach"),
    "a tensor without data (meta)": (lambda: torch.ones(2, device="meta"), "no data"),
    "a nested tensor": (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), ".unbind()"),
    "a jagged tensor": (
        lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        ".unbind()",
    ),
    "a quantized tensor": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), ".dequantize()"),
    "a layer without data (meta)": (lambda: nn.Sequential(nn.Linear(1, 1, device="meta")), "'0.weight'"),
    "an exported program": (lambda: torch.export.export(nn.Linear(1, 1), (torch.ones(1, 1),)), "torch.export.save"),
    "a DataLoader": (lambda: data.DataLoader([1, 2]), ".dataset"),
    "a GradScaler": (lambda: torch.amp.GradScaler("cpu"), "state_dict()"),
    "a random generator": (torch.Generator, "get_state()"),
    "a loss in a dict": (lambda: {"loss": torch.ones(2, requires_grad=True).sum()}, "['loss']"),
}


@pytest.mark.parametrize(("value", "mentions"), REFUSED_VALUES.values(), ids=REFUSED_VALUES)
def test_what_could_not_be_the_same_is_refused_with_the_way_out(value: Any, mentions: str) -> None:
    check_refused(value(), mentions)


# ---- modules


@pytest.mark.parametrize("name", ["layers", "transformer", "own"])
def test_a_module_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same_module)


def test_a_module_gives_the_same_answers() -> None:
    model = VALUES["transformer"]().eval()
    assert torch.equal(restored(model)(torch.ones(1, 4, 8)), model(torch.ones(1, 4, 8)))


def test_a_module_of_the_user_keeps_ties_buffers_functions_and_settings() -> None:
    found = restored(VALUES["own"]())
    assert type(found) is layers.Tied
    assert found.head.weight is found.embed.weight
    assert found.activation is functional.gelu
    assert found.norm is nn.LayerNorm
    assert found.settings == {"rate": 0.1, "sizes": (3, 5)}
    assert (list(found.state_dict()), found.dropped.tolist()) == (list(VALUES["own"]().state_dict()), [1, 1])
    assert not found.scale.requires_grad


def test_partial_functions_and_methods_among_the_attributes_are_kept() -> None:
    model = layers.Chosen()
    found = check_round_trip(model, equal=same_module)
    x = torch.ones(1, 2)
    assert torch.equal(found(x), model(x))
    assert found.rule.__self__ is found
    assert found.norm().eps == 1e-6


def test_a_model_of_hugging_face_in_a_module_keeps_its_settings() -> None:
    made_here = made.transformers()["gpt2"]()
    made_here.generation_config.max_new_tokens = 7
    found = check_round_trip(nn.Sequential(made_here), equal=same_module)
    assert found[0].generation_config == made_here.generation_config


def test_an_average_of_models_comes_back() -> None:
    average = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    average.update_parameters(nn.Linear(2, 2))
    check_round_trip(average, equal=same_module)


def test_no_constructor_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VALUES["own"]()
    monkeypatch.setattr(layers.Tied, "__init__", lambda self: pytest.fail("it ran"))
    assert type(restored(model)) is layers.Tied


def test_modes_of_inner_modules_are_kept() -> None:
    model = VALUES["layers"]()
    model[1].eval()
    assert [part.training for part in restored(model)] == [True, False, True]


def test_every_layer_of_torch_is_kept_or_refused() -> None:
    arguments: dict[str, tuple[Any, ...]] = {"Linear": (2, 3), "Conv1d": (1, 2, 3), "LSTM": (2, 3), "Dropout": (0.3,)}
    arguments |= {"MultiheadAttention": (4, 2), "Embedding": (3, 2), "Bilinear": (2, 2, 2), "GroupNorm": (1, 2)}
    arguments |= {"TransformerDecoderLayer": (4, 2, 8), "EmbeddingBag": (3, 2), "GRUCell": (2, 3), "PReLU": ()}
    arguments |= {"Softmax": (1,), "Upsample": (None, 2.0), "CrossEntropyLoss": (torch.ones(2),), "Flatten": ()}
    for name, given_ in arguments.items():
        check_round_trip(getattr(nn, name)(*given_), equal=same_module)


def in_a_function() -> Any:
    class Inside(nn.Module):  # type: ignore[misc]
        pass

    return Inside()


def hooked() -> Any:
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].register_forward_hook(lambda *_: None)
    return model


def with_a_lambda() -> Any:
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].act = lambda x: x
    return model


REFUSED = {
    "a class made in a function": (in_a_function, "top of its module"),
    "hooks": (hooked, "its module '0' has hooks"),
    "a lambda in an attribute": (with_a_lambda, "its part '0', in 'act'"),
    "a __getstate__ of its own": (layers.Remembers, "__getstate__"),
    "torch.compile": (lambda: torch.compile(nn.Linear(1, 1)), "what it wraps"),
    "a scripted module": (lambda: torch.jit.script(nn.Linear(1, 1)), "torch.jit"),
    "a parametrized layer": (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(1, 1)), "parametrized"),
    "a traced graph": (lambda: torch.fx.symbolic_trace(nn.Linear(1, 1)), "state_dict()"),
    "a lazy layer before its first batch": (lambda: nn.LazyLinear(2), "let a batch run"),
    "DataParallel": (lambda: nn.Sequential(nn.DataParallel(nn.Linear(1, 1))), "its module '0'"),
    "weight_norm by hooks": (lambda: nn.utils.weight_norm(nn.Linear(1, 1)), "remove_weight_norm"),
    "slots": (layers.Slotted, "__slots__"),
    "a function of the user": (layers.WithFunction, "in 'function'"),
}


@pytest.mark.parametrize(("make", "mentions"), REFUSED.values(), ids=REFUSED)
def test_a_module_that_is_code_is_refused_with_the_way_out(make: Any, mentions: str) -> None:
    check_refused(make(), mentions)


def test_with_permission_such_a_module_is_pickled() -> None:
    found = check_round_trip(
        with_a_lambda(),
        equal=lambda one, other: torch.equal(one[0].weight, other[0].weight),
        allow_pickle="fallback",
        deterministic=False,
    )
    assert found[0].act(3) == 3


# ---- training


def test_model_optimizer_and_schedule_come_back_as_one() -> None:
    found = check_round_trip(VALUES["training"](), equal=lambda one, other: same_module(one["model"], other["model"]))
    parameters = found["optimizer"].param_groups[0]["params"]
    assert all(one is other for one, other in zip(parameters, found["model"].parameters(), strict=True))
    assert found["scheduler"].optimizer is found["optimizer"]


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    states = [VALUES["training"](), restored(VALUES["training"]())]
    for state in states:
        for _ in range(3):
            state["optimizer"].zero_grad()
            state["model"](torch.ones(2, 3)).sum().backward()
            state["optimizer"].step()
            state["scheduler"].step()
    assert same_module(states[0]["model"], states[1]["model"])
    assert states[0]["scheduler"].get_last_lr() == states[1]["scheduler"].get_last_lr()


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "LBFGS", "NAdam", "Adamax", "Adafactor", "Muon"]
)
def test_every_optimizer_keeps_its_state(name: str) -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    check_round_trip(optimizer, equal=lambda one, other: repr(one.state_dict()) == repr(other.state_dict()))


def test_dicts_of_an_optimizer_and_a_model_come_back(tmp_path: Path) -> None:
    state = VALUES["training"]()
    value = {"model": state["model"].state_dict(), "optimizer": state["optimizer"].state_dict()}
    found = check_round_trip(value, equal=lambda one, other: repr(one) == repr(other))
    assert found["model"]._metadata == value["model"]._metadata


SCHEDULES = {
    "cyclic": lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, cycle_momentum=False),
    "exponential": lambda optimizer: torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.01, 0.1, mode="exp_range", gamma=0.9, cycle_momentum=False
    ),
    "averaging": lambda optimizer: torch.optim.swa_utils.SWALR(optimizer, 0.01),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_with_a_rule_of_its_own_goes_on(name: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = SCHEDULES[name](optimizer)
    both = [(optimizer, schedule), restored((optimizer, schedule))]
    for one, other in both:
        for _ in range(3):
            one.step()
            other.step()
    assert both[0][1].get_last_lr() == both[1][1].get_last_lr()


def test_a_dataset_of_tensors_and_its_splits_come_back() -> None:
    rows = data.TensorDataset(torch.arange(4), torch.ones(4, 2))
    first, last = restored(data.random_split(rows, [3, 1], torch.Generator().manual_seed(0)))
    assert (len(first), len(last), type(first)) == (3, 1, data.Subset)
    assert first.dataset is last.dataset
    assert torch.equal(first.dataset.tensors[0], torch.arange(4))


def test_gradients_are_no_part_of_a_module() -> None:
    model = nn.Linear(1, 1)
    model(torch.ones(1, 1)).backward()
    assert restored(model).weight.grad is None


def test_a_module_that_compiles_itself_comes_back_uncompiled() -> None:
    model = nn.Linear(2, 2)
    model.compile()
    assert same_module(check_round_trip(model, equal=same_module), model)


def test_a_schedule_made_of_a_function_is_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    check_refused(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5), "lambda")


def test_one_member_that_is_refused_does_not_harm_the_others(tmp_path: Path) -> None:
    value = {"good": nn.Linear(2, 2), "bad": with_a_lambda(), "also": torch.ones(2)}
    found = restored(value, allow_pickle="fallback")
    assert same_module(found["good"], value["good"])
    assert found["bad"][0].act(1) == 1


# ---- files


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("torch") == digests("torch")


def test_other_programs_read_the_weights_by_their_names(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="it reads what is written without it")
    model = VALUES["layers"]()
    saved_in(tmp_path / "model", model)
    found = safetensors.load_file(tmp_path / "model" / "tensors.safetensors")
    assert {name: same(found[name], tensor.detach()) for name, tensor in model.state_dict().items()} == dict.fromkeys(
        model.state_dict(), True
    )
    saved_in(tmp_path / "state", model.state_dict())
    assert set(safetensors.load_file(tmp_path / "state" / "torch" / "tensors.safetensors")) == set(model.state_dict())


def test_mlflow_runs_a_module(tmp_path: Path) -> None:
    import mlflow.pyfunc
    import pandas as pd

    model = nn.Linear(3, 2)
    saved_in(tmp_path / "model", model)
    data = np.ones((2, 3), "f4")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    wanted = model(torch.from_numpy(data)).detach().numpy()
    assert np.array_equal(loaded.predict(data), wanted)
    assert np.array_equal(loaded.predict(pd.DataFrame(data)).to_numpy(), wanted)


def test_the_metadata_are_those_of_the_model(tmp_path: Path) -> None:
    model = VALUES["layers"]()
    about = saved_in(tmp_path / "model", model)[0].metadata
    assert about["layers"] == {"Conv2d": 1, "BatchNorm2d": 1, "GRU": 1}
    assert (about["dtypes"], about["devices"], about["training"]) == (["float32"], ["cpu"], True)
    assert about["parameters"] == sum(part.numel() for part in model.parameters())
    card = Model(model).describe()
    assert (card["framework"], card["parameters"]) == ("torch", about["parameters"])


# ---- files of others


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def lies(**changed: Any) -> bytes:
    header = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


def zipped_pickle() -> bytes:
    stream = io.BytesIO()
    torch.save(Bomb(), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 64,
        (1 << 62).to_bytes(8, "little") + b"{}",
        lies(shape=[3]),
        lies(shape=[-2]),
        lies(shape=[1 << 62]),
        lies(data_offsets=[0, 800]),
        lies(data_offsets=[8, 0]),
        lies(dtype="PICKLE"),
        lies(shape="2"),
        zipped_pickle(),
    ],
)
def test_a_file_of_tensors_that_lies_is_an_error_and_executes_nothing(content: bytes, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", nn.Linear(1, 2, bias=False))
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"tensors.safetensors": content})
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "reference",
    [
        "os:system",
        "subprocess:Popen",
        "torch.fx.graph_module:GraphModule",
        "torch.jit._script:ScriptModule",
        "torch_layers:NoModule",
        "torch_layers:Remembers",
        "builtins:object",
        "no_such_module:Model",
    ],
)
def test_a_class_that_is_no_layer_is_not_made(reference: str, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", nn.Linear(1, 2))
    structure = json.loads((tmp_path / "model" / "structure.json").read_text())
    structure["objects"][0]["class"] = reference
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"structure.json": json.dumps(structure).encode()})


@pytest.mark.parametrize(
    "name",
    [
        *("torch:load", "os:system", "torch.nn.functional:importlib", "builtins:eval", "torch:hub"),
        *("torch.optim.lr_scheduler:warnings.warn", "torch.optim.lr_scheduler:_copy", "torch_layers:own"),
    ],
)
def test_a_function_that_is_not_on_the_list_is_not_found(name: str, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", layers.Tied())
    text = (tmp_path / "model" / "structure.json").read_text().replace("torch.nn.functional:gelu", name)
    assert name in text
    with pytest.raises(MaterializationError, match="not known here"):
        loaded_with(tmp_path / "model", saved, {"structure.json": text.encode()})


def test_a_view_beyond_its_memory_is_refused(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    saved, _ = saved_in(tmp_path / "views", [base[:6], base[4:]])
    file = tmp_path / "views" / "torch" / "structure.json"
    structure = json.loads(file.read_text())
    structure["tensors"][0]["shape"] = [1000]
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "views", saved, {"torch/structure.json": json.dumps(structure).encode()})
