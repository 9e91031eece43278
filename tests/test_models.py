"""Loading what is right, and saying what is wrong with the rest."""

import json
import shutil

import pytest
import tiny_model
import torch

from visdial_lab.config import load_config
from visdial_lab.errors import UserError
from visdial_lab.models import (
    load_base_for_training,
    load_model,
    load_processor,
    pick_dtype,
    stored_weight,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "copy")


def hidden(model):
    ids = torch.tensor([[2, 300, 301, 302]])
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_base_model_is_ready_for_inference(base):
    model, processor = load_model(base)
    assert not model.training and model.dtype == torch.float32 == pick_dtype("cpu")
    assert type(processor).__name__ == "Gemma3Processor"


def test_text_only_model(tmp_path):
    model, processor = load_model(tiny_model.build_text(tmp_path / "text"))
    assert type(model).__name__ == "Gemma3ForCausalLM" and not hasattr(processor, "image_processor")


def test_four_bit_on_the_cpu_is_unpacked_nf4(base):
    """Unpacking once changes neither the values that NF4 chose nor, therefore, the answers."""
    import bitsandbytes as bnb

    exact, _ = load_model(base)
    unpacked, _ = load_model(base, load_in_4bit=True)
    name = "model.language_model.layers.0.mlp.up_proj"
    weight, original = unpacked.get_submodule(name).weight, exact.get_submodule(name).weight
    packed, state = bnb.functional.quantize_4bit(original.data, quant_type="nf4")
    torch.testing.assert_close(weight.data, bnb.functional.dequantize_4bit(packed, state))
    assert not torch.equal(weight, original)
    assert torch.equal(unpacked.lm_head.weight, exact.lm_head.weight)  # the output layer stays exact
    assert not any(isinstance(module, bnb.nn.Linear4bit) for module in unpacked.modules())


def test_weights_in_training_stay_as_they_were_packed(base, monkeypatch):
    """On some CPUs bitsandbytes would repack them at the first evaluation, with coarser scales."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    config = load_config(overrides={"model.name": str(base)})
    model = load_base_for_training(config, load_processor(base))
    flags = [getattr(module, "support_avx512bf16_for_cpu", None) for module in model.modules()]
    assert False in flags and True not in flags


def test_missing_folder():
    for name in ("data/no-such-model", "/no/such/model", "nonsense"):
        with pytest.raises(UserError, match=f"model folder not found: {name}"):
            load_model(name)


def test_unknown_hub_name_offline():
    with pytest.raises(UserError, match="cannot load a model from nobody/no-such-model"):
        load_model("nobody/no-such-model")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"holds no model: config\.json is missing"):
        load_model(tmp_path)


def test_foreign_architecture(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="model of type 'llama'; this course needs Gemma-3"):
        load_model(copy)


def test_truncated_config(copy):
    (copy / "config.json").write_text('{"model_type": "gem')
    with pytest.raises(UserError, match=r"config\.json.*not valid JSON"):
        load_model(copy)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1000])
def test_damaged_weights(copy, keep):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"cannot load a model from .*copy"):
        load_model(copy)


def test_missing_weights_file(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load a model from"):
        load_model(copy)


def test_incomplete_weights_are_not_filled_with_noise(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    gone = next(name for name in weights if "layers.1.mlp.up_proj" in name)
    del weights[gone]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weight missing \(first .*layers\.1\.mlp\.up_proj"):
        load_model(copy)


def test_weights_of_another_shape(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 48
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"the weights do not fit config\.json \(first .*mlp"):
        load_model(copy)


def test_missing_processor(copy):
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="copy"):
        load_model(copy)


def test_adapter_without_base_name(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config\.json: base_model_name_or_path is missing"):
        load_model(tmp_path)


def test_adapter_whose_base_is_gone(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "data/gone"}))
    with pytest.raises(UserError, match="model folder not found: data/gone"):
        load_model(tmp_path)


@pytest.fixture
def adapter(base, tmp_path):
    """An untrained LoRA adapter, saved as training saves one."""
    from peft import LoraConfig, get_peft_model

    model, processor = load_model(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_adapter_brings_its_base_along(adapter, base):
    """LoRA begins as an update of zero: adapter and base say the same."""
    torch.testing.assert_close(hidden(load_model(adapter)[0]), hidden(load_model(base)[0]))


def test_an_adapter_that_stays_apart_can_be_turned_up_and_down(adapter, base):
    """Times 0 it is the base model, times 1 the merged one, also when the base is rounded to 4 bits."""
    from peft.helpers import rescale_adapter_scale
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: torch.full_like(weight, 0.1) for name, weight in weights.items()}, path)
    apart, _ = load_model(adapter, load_in_4bit=True, merge=False)
    merged, _ = load_model(adapter, load_in_4bit=True)
    untouched, _ = load_model(base, load_in_4bit=True)
    assert not torch.allclose(hidden(merged), hidden(untouched), atol=1e-3)
    torch.testing.assert_close(hidden(apart), hidden(merged))
    with rescale_adapter_scale(apart, 0):
        torch.testing.assert_close(hidden(apart), hidden(untouched))


def test_a_weight_as_it_lies_in_the_file(base):
    model, _ = load_model(base)
    found = stored_weight(base, "layers.0.mlp.gate_proj.weight")
    assert torch.equal(found, model.get_submodule("model.language_model.layers.0.mlp.gate_proj").weight)
    with pytest.raises(UserError, match=r"holds no weight layers\.99\.mlp\.gate_proj\.weight"):
        stored_weight(base, "layers.99.mlp.gate_proj.weight")


def test_adapter_with_missing_weights(adapter):
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    del weights[next(iter(weights))]
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="some of its weights are missing"):
        load_model(adapter)


def test_damaged_adapter(adapter):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot load a model from .*adapter"):
        load_model(adapter)
    weights.unlink()
    with pytest.raises(UserError, match=r"cannot load a model from .*adapter"):
        load_model(adapter)


def test_adapter_on_another_base(adapter, tmp_path):
    tiny_model.build(tmp_path / "wide", width=48)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "wide")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="weights do not fit its config"):
        load_model(adapter)
