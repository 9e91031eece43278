"""QLoRA on a tiny model: it learns, it repeats itself exactly, and it leaves a whole adapter or none."""

import functools
import json

import pytest
import tiny_model
from tiny_training import QUICK, quick_config

from visdial_lab.backends import lora_targets
from visdial_lab.errors import UserError
from visdial_lab.finetune import finetune
from visdial_lab.generation import write_records
from visdial_lab.inference import answer_dialogs
from visdial_lab.models import load_model
from visdial_lab.visdial import VisDial

pytestmark = pytest.mark.usefixtures("one_thread")

settings = functools.partial(
    quick_config,
    QUICK
    | {
        "training.per_device_train_batch_size": 2,
        "training.save_steps": None,
        "training.num_train_epochs": 2,
    },
)


def test_learns_and_the_adapter_answers_as_taught(course, rows):
    """Overfitting on purpose: after training on one dialog the model gives its answers."""
    calls = []
    made = finetune(
        settings(training__num_train_epochs=40, training__lr_scheduler_type="constant", peft__r=16),
        rows[:1],
        "adapter",
        on_log=lambda *values: calls.append(values),
    )
    losses = [row["loss"] for row in made["history"]]
    assert losses[-1] < 0.3 * losses[0]
    steps, totals, *_, left = zip(*calls, strict=True)
    assert steps == tuple(range(1, 41)) and set(totals) == {40} and left[-1] == 0
    dialog = VisDial.load(course, "train")[0]
    model, processor = load_model("adapter")
    [said] = answer_dialogs(model, processor, [dialog])
    assert said == [turn.answer for turn in dialog.rounds]


def test_same_seed_same_numbers_and_files(course, rows):
    first = finetune(settings(), rows, "one")
    second = finetune(settings(), rows, "two")
    assert [row["loss"] for row in first["history"]] == [row["loss"] for row in second["history"]]
    weights = [(course / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    other = finetune(settings(training__seed=1), rows, "three")
    assert other["history"][-1]["loss"] != first["history"][-1]["loss"]


def test_folder_is_complete_and_portable(course, rows):
    write_records("records.jsonl", VisDial.load(course, "train"))
    val = VisDial.load(course, "val")[:2]
    made = finetune(settings(training__save_steps=2), "records.jsonl", "runs/adapter", val=val)
    folder = course / "runs" / "adapter"
    notes = json.loads((folder / "lab.json").read_text())
    assert notes["base_model"] == "base" and notes["records"]["path"] == "records.jsonl"
    assert notes["records"]["count"] == 4 and notes["val"]["dialogs"] == 2 and notes["seed"] == 3407
    assert (
        notes["steps"] == 4 and notes["final_loss"] == [r for r in made["history"] if "loss" in r][-1]["loss"]
    )
    assert json.loads((folder / "history.json").read_text()) == made["history"]
    assert len([row for row in made["history"] if "eval_loss" in row]) == 2
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "base"
    for file in folder.iterdir():
        assert str(course).encode() not in file.read_bytes(), file.name
    assert [entry.name for entry in folder.parent.iterdir()] == ["adapter"]  # nothing temporary is left


def test_base_stays_frozen_and_lora_goes_where_the_config_says(course, rows):
    from safetensors import safe_open

    def trained(**overrides):
        finetune(settings(training__max_steps=1, **overrides), rows, "adapter", replace=True)
        with safe_open(course / "adapter" / "adapter_model.safetensors", "pt") as file:
            return {name.split(".lora_")[0].removeprefix("base_model.model.") for name in file.keys()}  # noqa: SIM118

    language = "model.language_model.layers.0"
    attention = {f"{language}.self_attn.{part}_proj" for part in "qkvo"}
    mlp = {f"{language}.mlp.{part}_proj" for part in ("gate", "up", "down")}
    first_layer = {name for name in trained() if name.startswith(f"{language}.")}
    assert first_layer == attention | mlp
    names = trained(peft__finetune_vision_layers=True, peft__finetune_mlp_modules=False)
    assert {name for name in names if name.startswith(f"{language}.")} == attention
    seeing = {name.rpartition(".")[2] for name in names if "vision_tower" in name}
    assert seeing == {"q_proj", "k_proj", "v_proj", "out_proj"}
    names = trained(
        peft__finetune_vision_layers=True,
        peft__finetune_language_layers=False,
        peft__finetune_attention_modules=False,
    )
    assert {name.rpartition(".")[2] for name in names} == {"fc1", "fc2"}
    assert all("vision_tower" in name for name in names)


def test_remembered_pictures_change_nothing(course, rows, monkeypatch):
    """The vision tower is frozen here: looking once and looking in every epoch must give the same losses."""
    once = finetune(settings(), rows, "once")
    monkeypatch.setattr("visdial_lab.backends._REMEMBERED", 0)
    always = finetune(settings(), rows, "always")
    assert [row["loss"] for row in once["history"]] == pytest.approx(
        [row["loss"] for row in always["history"]], abs=1e-5
    )


def test_text_only_model(course, rows):
    tiny_model.build_text(course / "blind")
    finetune(settings(model__name="blind", training__max_steps=2), rows, "adapter")
    model, processor = load_model("adapter")
    assert not hasattr(processor, "image_processor") and type(model).__name__ == "Gemma3ForCausalLM"
    with pytest.raises(UserError, match="nothing to train"):
        lora_targets(
            settings(peft__finetune_language_layers=False, peft__finetune_vision_layers=True), sees=False
        )


@pytest.mark.parametrize(
    "overrides",
    [
        {"model__load_in_4bit": False},
        {"model__use_gradient_checkpointing": True},
        {"training__gradient_accumulation_steps": 2},
        {"peft__use_rslora": True, "peft__lora_dropout": 0.1, "peft__bias": "lora_only"},
        {"training__lr_scheduler_type": "linear", "training__weight_decay": 0.1},
    ],
)
def test_settings_are_honoured(course, rows, overrides):
    """Each setting changes the run: the losses after some steps differ from those of the plain run, or the
    run works."""
    plain = finetune(settings(), rows, "plain")["history"]
    changed = finetune(settings(**overrides), rows, "changed")["history"]
    if "model__use_gradient_checkpointing" in overrides:  # recomputing changes memory and time, not numbers
        assert changed[-1]["loss"] == pytest.approx(plain[-1]["loss"], abs=1e-4)
    else:
        assert [row["loss"] for row in changed] != [row["loss"] for row in plain]


def test_the_8_bit_optimizer_is_taken(course, rows, monkeypatch):
    """It keeps matrices as small as these in 32 bits, so the losses may be equal; look at who is called."""
    from bitsandbytes.optim import AdamW

    bits, build = [], AdamW.__init__

    def watched(self, *args, **options):
        bits.append(options["optim_bits"])
        build(self, *args, **options)

    monkeypatch.setattr(AdamW, "__init__", watched)
    finetune(settings(training__optim="adamw_8bit", training__max_steps=1), rows, "adapter")
    assert bits == [8]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"training__backend": "unsloth"}, "needs a CUDA GPU"),
        ({"training__fp16": True}, "needs a CUDA GPU"),
        ({"training__bf16": True}, "needs a CUDA GPU"),
        ({"training__optim": "paged_adamw_8bit"}, "needs a GPU"),
        ({"training__max_seq_length": 20}, r"train-\d+ has \d+ tokens, training.max_seq_length is 20"),
        ({"peft__bias": "all"}, 'peft.bias "all"'),
        ({"model__name": "nowhere/at/all"}, "model folder not found"),
    ],
)
def test_settings_are_refused_with_a_reason(course, rows, overrides, complaint):
    with pytest.raises(UserError, match=complaint):
        finetune(settings(**overrides), rows, "adapter")
    assert not (course / "adapter").exists()


def test_records_without_picture_are_named(course, rows):
    rows[1]["image"] = None
    with pytest.raises(UserError, match=f"{rows[1]['id']} has no image"):
        finetune(settings(), rows, "adapter")
    rows[1]["image"] = "images/gone.jpg"
    with pytest.raises(UserError, match=f"{rows[1]['id']}: image not found: images/gone.jpg"):
        finetune(settings(), rows, "adapter")
    with pytest.raises(UserError, match="no records"):
        finetune(settings(), [], "adapter")


def test_ctrl_c_leaves_nothing_half_written_and_keeps_the_old_adapter(course, rows):
    finetune(settings(training__max_steps=1), rows, "adapter")
    before = (course / "adapter" / "lab.json").read_bytes()

    def interrupt(step, *_):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(settings(), rows, "adapter", on_log=interrupt, replace=True)
    assert (course / "adapter" / "lab.json").read_bytes() == before
    assert not [entry.name for entry in course.iterdir() if "tmp" in entry.name or "old" in entry.name]


def test_a_folder_that_is_not_ours_is_not_replaced(course, rows):
    (course / "thesis").mkdir()
    (course / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(UserError, match="thesis"):
        finetune(settings(), rows, "thesis")
    assert (course / "thesis" / "chapter1.txt").read_text() == "years of work"
    calls = []
    with pytest.raises(UserError, match="a file of that name is in the way"):  # now, not after hours
        finetune(settings(), rows, "thesis/chapter1.txt", on_log=lambda *_: calls.append(1))
    assert not calls


def test_an_adapter_is_not_a_base_model(course, rows):
    finetune(settings(training__max_steps=1), rows, "adapter")
    with pytest.raises(UserError, match="an adapter; fine-tuning starts from a base model"):
        finetune(settings(model__name="adapter"), rows, "second")
