"""An adapter becomes an ordinary model that says the same, in a folder that other programs understand."""

import json
import re

import jinja2
import pytest
import tiny_model
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from visdial_lab.cli import main
from visdial_lab.config import load_config
from visdial_lab.errors import UserError
from visdial_lab.export import export
from visdial_lab.finetune import finetune
from visdial_lab.generation import records
from visdial_lab.inference import answer_dialogs
from visdial_lab.models import load_base_for_training, load_model, load_processor
from visdial_lab.ranking import score_dialogs
from visdial_lab.visdial import VisDial


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {"vision": tiny_model.build(folder / "vision"), "text": tiny_model.build_text(folder / "text")}


def make_adapter(base, folder, four_bit=False):
    """A LoRA adapter with random matrices, as if trained; without lab.json unless in 4 bits."""
    from peft import LoraConfig, get_peft_model

    config = load_config(overrides={"model.name": str(base), "model.load_in_4bit": four_bit})
    processor = load_processor(config.model.name)
    model = load_base_for_training(config, processor)
    torch.manual_seed(0)
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(model, lora)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if four_bit:
        (folder / "lab.json").write_text(json.dumps({"config": {"model": {"load_in_4bit": True}}}))
    return folder


@pytest.mark.parametrize("four_bit", [False, True], ids=["16-bit", "4-bit"])
@pytest.mark.parametrize("kind", ["vision", "text"])
def test_says_what_the_adapter_says(bases, tiny, tmp_path, kind, four_bit):
    """A 4-bit adapter is merged into the unpacked 4-bit weights: the original ones give other scores."""
    adapter = make_adapter(bases[kind], tmp_path / "adapter", four_bit)
    export(adapter, tmp_path / "merged")
    dialogs = list(VisDial.load(tiny, "val"))[:2]

    def scores(path, **options):
        rows = score_dialogs(*load_model(path, **options), dialogs)
        return torch.tensor([row.tolist() for dialog in rows for row in dialog])

    expected, merged, base = scores(adapter), scores(tmp_path / "merged"), scores(bases[kind])
    rounding = (merged - expected).abs().max()
    assert rounding < 0.1 * (base - expected).abs().mean()
    if four_bit:
        assert rounding < 0.5 * (scores(adapter, load_in_4bit=False) - expected).abs().max()
    assert (
        load_model(tmp_path / "merged")[0].config.model_type
        == {"vision": "gemma3", "text": "gemma3_text"}[kind]
    )


@pytest.mark.slow
def test_answers_of_the_embedded_model_stay_the_same(scenes, tmp_path):
    """Trained in 4 bits on the embedded scenes; bfloat16 is all that differs, and decides only near ties.

    After so few steps there are some of those; after 80 steps all 120 answers of 12 dialogs are the same.
    """
    train, val = VisDial.load(scenes, "train")[:24], list(VisDial.load(scenes, "val")[:4])
    config = load_config("scenes", {"training.max_steps": 6, "training.warmup_steps": 0})
    finetune(config, list(records(train)), tmp_path / "adapter")
    export(tmp_path / "adapter", tmp_path / "merged")
    said, scores = [], []
    for folder in ("adapter", "merged"):
        loaded = load_model(tmp_path / folder)
        said.append(answer_dialogs(*loaded, val))
        scores.append(torch.tensor([row.tolist() for row in score_dialogs(*loaded, val[:1])[0]]))
    difference = (scores[0] - scores[1]).abs().max().item()
    pairs = [pair for dialogs in zip(*said, strict=True) for pair in zip(*dialogs, strict=True)]
    changed = [pair for pair in pairs if pair[0] != pair[1]]
    print(f"{len(changed)} of {len(pairs)} answers differ: {changed}")
    print(f"largest difference of a score: {difference:.3f} (spread {scores[0].std():.1f})")
    assert len(changed) <= 2 and difference < 0.02 * scores[0].std()


def test_weights_are_rounded_once(bases, tmp_path):
    """On the CPU the sum is made in float32; what is in the file is its nearest bfloat16."""
    adapter = make_adapter(bases["vision"], tmp_path / "adapter", four_bit=True)
    export(adapter, tmp_path / "merged")
    exact, merged = load_model(adapter)[0].state_dict(), load_model(tmp_path / "merged")[0].state_dict()
    assert exact.keys() == merged.keys()
    for name, value in exact.items():
        assert torch.equal(value.bfloat16().float(), merged[name]), name


def test_what_is_in_the_folder(bases, tmp_path):
    (bases["vision"] / "tokenizer.model").write_bytes(b"pieces and scores")
    try:
        missing = export(make_adapter(bases["vision"], tmp_path / "adapter", True), tmp_path / "merged")
    finally:
        (bases["vision"] / "tokenizer.model").unlink()
    folder = tmp_path / "merged"
    assert missing == ["with pictures, Ollama knows Gemma-3 4b, 12b and 27b only; this one has 3 layers"]
    assert (folder / "tokenizer.model").read_bytes() == b"pieces and scores"
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_bos_token"] is True
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "quantization_config" not in config
    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert {weights.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert {name.split(".")[0] for name in names} == {
        "language_model",
        "vision_tower",
        "multi_modal_projector",
    }
    assert all(name.startswith("vision_tower.vision_model.") for name in names if "vision_tower" in name)
    assert not [name for name in names if "lora" in name or "base_layer" in name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


def test_large_models_come_in_parts(bases, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    real = PreTrainedModel.save_pretrained
    monkeypatch.setattr(
        PreTrainedModel,
        "save_pretrained",
        lambda self, folder, max_shard_size: real(self, folder, max_shard_size="100KB"),
    )
    adapter = make_adapter(bases["vision"], tmp_path / "adapter")
    export(adapter, tmp_path / "merged")
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {shard: set(load_file(tmp_path / "merged" / shard)) for shard in set(index.values())}
    assert len(shards) > 1 and all(name in shards[shard] for name, shard in index.items())
    assert sum(map(len, shards.values())) == len(index)
    assert load_model(tmp_path / "merged")[0]  # nothing is missing


def test_the_card_tells_where_the_model_comes_from(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tiny))
    monkeypatch.chdir(tiny)
    tiny_model.build(tiny / "base")
    config = load_config(
        "scenes", {"model.name": "base", "training.max_steps": 2, "training.logging_steps": 1, "peft.r": 4}
    )
    finetune(config, list(records(VisDial.load(tiny, "train"))), "adapter")
    with pytest.raises(SystemExit) as stop:
        main(["export", "--model-path", "adapter", "--output_dir", "merged", "--merged"])
    assert not stop.value.code
    card = (tiny / "merged" / "README.md").read_text()
    lab = json.loads((tiny / "adapter" / "lab.json").read_text())
    for line in (
        "| base model | base, in 4 bits (NF4) |",
        f"| base model's sha256 | {lab['base_model_sha256']} |",
        "| trained on | 4 dialogs (from memory) |",
        f"| records' sha256 | {lab['records']['sha256']} |",
        f"| LoRA | rank 4, alpha {lab['config']['peft']['lora_alpha']} |",
        "| steps | 2 |",
        "| seed | 3407 |",
        f"| final loss | {lab['final_loss']:.3f} |",
    ):
        assert line in card.splitlines(), line
    assert f"torch {lab['versions']['torch']}" in card and "https://ai.google.dev/gemma/terms" in card
    assert "cannot run this model" in card and "tokenizer.model" in card and "\n\n\n" not in card
    assert json.loads((tiny / "merged" / "export.json").read_text())["adapter"] == lab
    assert str(tiny) not in card and str(tiny) not in (tiny / "merged" / "export.json").read_text()


def go_to_jinja(template: str) -> str:
    """The few constructs of Go's templates that ours uses, in Jinja2, whose {{- trims alike."""
    for go, other in (
        (r"\{\{- \$system := \.System \}\}", "{%- set ns = namespace(system=system) %}"),
        (r"\{\{- range \$i, \$_ := \.Messages \}\}", "{%- for turn in messages %}"),
        (r"\{\{- \$last := eq \(len \(slice \$\.Messages \$i\)\) 1 \}\}", "{%- set last = loop.last %}"),
        (r'\{\{- if eq \.Role "user" \}\}', '{%- if turn.role == "user" %}'),
        (r'\{\{- else if eq \.Role "assistant" \}\}', '{%- elif turn.role == "assistant" %}'),
        (r"\{\{ if \$system \}\}", "{% if ns.system %}"),
        (r"\{\{ \$system \}\}", "{{ ns.system }}"),
        (r'\{\{ \$system = "" \}\}', '{% set ns.system = "" %}'),
        (r"\{\{ \.Content \}\}", "{{ turn.content }}"),
        (r"\{\{ if \$last \}\}", "{% if last %}"),
        (r"\{\{ if not \$last \}\}", "{% if not last %}"),
    ):
        template, count = re.subn(go, lambda _, other=other: other, template)
        assert count >= 1, go
    stack, pieces = [], re.split(r"(\{%-? (?:if|for) .*?%\}|\{\{-? end \}\})", template)
    for place, piece in enumerate(pieces):
        if opened := re.match(r"\{%-? (if|for)", piece):
            stack.append(opened[1])
        elif piece.endswith("end }}"):
            pieces[place] = piece.replace("{{", "{%").replace("end }}", f"end{stack.pop()} %}}")
    assert not stack
    return "".join(pieces)


def test_the_modelfile_writes_dialogs_as_the_chat_template_does(bases, tmp_path):
    """User and model in turn, a system's words at the head; at the end it is the model's turn."""
    export(make_adapter(bases["text"], tmp_path / "adapter"), tmp_path / "merged")
    text = (tmp_path / "merged" / "Modelfile").read_text()
    assert "\nFROM .\n" in text and '\nPARAMETER stop "<end_of_turn>"\n' in text
    assert text.count('"""') == 4 and "{%" not in text and text.endswith('files were changed."""\n')
    assert 'LICENSE """The licence is that of the base model, ' in text and "/gemma/terms" in text
    template = jinja2.Template(go_to_jinja(re.search(r'TEMPLATE """(.*?)"""', text, re.S)[1]))
    _, processor = load_model(tmp_path / "merged")
    turns = [("user", "a park\nis it sunny?"), ("assistant", "yes"), ("user", "any people?")]
    turns += [("assistant", "2"), ("user", "men?")]
    for count in (1, 3, 5):
        messages = [{"role": role, "content": content} for role, content in turns[:count]]
        expected = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert "<bos>" + template.render(messages=messages, system="") == expected
    said = template.render(messages=[{"role": "system", "content": "be brief"}, *messages], system="be brief")
    assert said.startswith("<start_of_turn>user\nbe brief\n\na park\n") and said.count("be brief") == 1


def test_refusals(bases, tmp_path, monkeypatch):
    adapter = make_adapter(bases["text"], tmp_path / "adapter")

    def refusal(model, output):
        with pytest.raises(UserError) as error:
            export(model, output)
        return str(error.value)

    monkeypatch.setattr("visdial_lab.export.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert "is no adapter: there is nothing to merge" in refusal(bases["text"], tmp_path / "m")
    assert "is no adapter" in refusal("someone/some-model", tmp_path / "m")
    assert "model folder not found" in refusal(tmp_path / "none", tmp_path / "m")
    assert "it holds other files (no export.json)" in refusal(adapter, adapter)
    assert "it holds other files (no export.json)" in refusal(adapter, bases["text"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "data/gone"})
    )
    assert "base model: model folder not found: data/gone" in refusal(adapter, tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_broken_off_leaves_what_was_there(bases, tmp_path, monkeypatch):
    adapter = make_adapter(bases["text"], tmp_path / "adapter")
    export(adapter, tmp_path / "merged")
    before = {path.name: path.read_bytes() for path in (tmp_path / "merged").iterdir()}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("visdial_lab.export._describe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        export(adapter, tmp_path / "merged")
    assert {path.name: path.read_bytes() for path in (tmp_path / "merged").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]
    export(adapter, tmp_path / "merged")  # its own folder it may replace
