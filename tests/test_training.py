"""Long trainings: stopped and resumed, validated, shared by processes; and what both back ends are given."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
from tiny_training import QUICK, Stop, curve, quick_config, weights

from visdial_lab import backends, checkpoints
from visdial_lab.cli import main
from visdial_lab.config import load_config
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.finetune import finetune
from visdial_lab.generation import records
from visdial_lab.models import load_model, load_processor
from visdial_lab.visdial import VisDial

LONG = QUICK | {
    "model.load_in_4bit": False,
    "peft.lora_dropout": 0.1,
    "training.per_device_train_batch_size": 1,
    "training.num_train_epochs": 3,
    "training.save_steps": 2,
    "training.group_by_length": True,
}
settings = functools.partial(quick_config, LONG)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("step", "grouped"), [(3, False), (8, True)])
def test_resumed_training_equals_an_unbroken_one(course, rows, step, grouped):
    """Dropout on, batches grouped by length or not, validated: the same losses, the same bytes in the end."""
    val = VisDial.load(course, "val")[:2]
    mine = settings(training__group_by_length=grouped)
    unbroken = finetune(mine, rows, "unbroken", val)

    def stop(now, *_):
        if now == step:
            raise Stop

    with pytest.raises(Stop):
        finetune(mine, rows, "broken", val, on_log=stop)
    assert not (course / "broken").exists()
    steps = []
    resumed = finetune(mine, rows, "broken", val, on_log=lambda now, *_: steps.append(now))
    assert curve(resumed) == curve(unbroken)
    assert steps[0] == 2 * ((step - 1) // 2) + 1  # it went on behind the last whole checkpoint
    assert resumed["resumed_at"] == steps[0] - 1 and unbroken["resumed_at"] == 0
    assert weights(course / "broken") == weights(course / "unbroken")
    assert not list(course.glob("*.training"))


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [0, 5])
def test_killed_with_sigkill_at_random_moments(course, negatives):
    """The command itself, killed again and again wherever it happens to be, ends as the unbroken one."""
    profile = {
        "model": {"name": "base", "load_in_4bit": False},
        "data": {"root": str(course)},
        "training": {},
    }
    for key, value in (LONG | {"training.negatives": negatives}).items():
        section, _, name = key.partition(".")
        profile.setdefault(section, {})[name] = value
    (course / "mine.yaml").write_text(json.dumps(profile))
    call = [sys.executable, "-m", "visdial_lab", "finetune", "--config", "mine.yaml", "--output-dir"]
    subprocess.run([*call, "unbroken"], check=True, capture_output=True, cwd=course)
    kills = 0
    while not (course / "broken" / "lab.json").exists():
        process = subprocess.Popen(
            [*call, "broken"], cwd=course, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        seen = 0
        for line in process.stderr:
            seen += bool(re.search(r"fine-tuning: \d+ of 12", line))
            if seen == 1 + kills % 3 + kills:  # one step further each time
                time.sleep(0.03 * kills)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
        process.wait()
        process.stderr.close()
        assert kills < 12
    assert kills >= 2
    assert weights(course / "broken") == weights(course / "unbroken")
    histories = [json.loads((course / name / "history.json").read_text()) for name in ("broken", "unbroken")]
    assert [row["loss"] for row in histories[0]] == [row["loss"] for row in histories[1]]
    assert not list(course.glob("*.training"))


def test_a_checkpoint_cut_short_is_passed_over(course, tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    checkpoints.seal(tmp_path / "checkpoint-2")
    checkpoints.seal(tmp_path / "checkpoint-4")
    assert checkpoints.last(tmp_path) == str(tmp_path / "checkpoint-4")  # 10 was being written
    assert checkpoints.last(tmp_path / "none") is None


def test_curves_outlive_the_checkpoints(tmp_path):
    """TensorBoard's event files lie beside the checkpoints; each start of the run has a folder of its own."""
    output, run = tmp_path / "adapter", {"seed": 1}
    for names in (["Nov26_10-00-00_host", "Nov26_11-00-00_host"], ["Nov27_10-00-00_host"]):  # resumed; anew
        work = checkpoints.begin(output, run, replace=False)
        for name in names:
            (work / "runs" / name).mkdir(parents=True)
            (work / "runs" / name / "events.out.tfevents.1").write_text(name)
        checkpoints.remove(output, {"seed": 2})  # another run's are left alone
        assert work.exists() and not any("Nov27" in path.name for path in tmp_path.glob("*.curves/*"))
        checkpoints.remove(output, run)
        assert not work.exists()
    kept = sorted(tmp_path.glob("adapter.curves/*/events*"))
    assert [path.read_text() for path in kept] == [path.parent.name for path in kept] and len(kept) == 3


def test_finished_runs_are_not_repeated_and_those_of_others_not_replaced(course, rows):
    made = finetune(settings(), rows, "adapter")
    before = weights(course / "adapter")
    notes, calls = json.loads((course / "adapter" / "lab.json").read_text()), []
    checkpoints.begin(course / "adapter", notes["made_from"], replace=False)  # killed before it was removed
    again = finetune(settings(), rows, "adapter", on_log=lambda *_: calls.append(1))
    assert again["history"] == made["history"] and not calls
    assert not (course / "adapter.training").exists()
    with pytest.raises(UserError, match=r"adapter of another run: training.learning_rate 0.02, now 0.01"):
        finetune(settings(training__learning_rate=0.01), rows, "adapter")
    with pytest.raises(UserError, match="adapter of another run: records"):
        finetune(settings(), rows[:2], "adapter")
    assert weights(course / "adapter") == before
    finetune(settings(training__learning_rate=0.01), rows, "adapter", replace=True)
    assert weights(course / "adapter") != before


def test_unfinished_work_of_another_run(course, rows):
    def stop(now, *_):
        if now == 3:
            raise Stop

    with pytest.raises(Stop):
        finetune(settings(), rows, "adapter", on_log=stop)
    with pytest.raises(UserError, match=r"checkpoints of another run: peft.r 4, now 8.*\n.*--replace"):
        finetune(settings(peft__r=8), rows, "adapter")
    finetune(settings(peft__r=8), rows, "adapter", replace=True)
    (course / "mine.training").mkdir()
    (course / "mine.training" / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match="in the way"):
        finetune(settings(), rows, "mine", replace=True)


@pytest.mark.slow
def test_the_best_checkpoint_becomes_the_adapter(course, rows, monkeypatch):
    """Validated at every checkpoint and at the end; with MRR as the measure, the highest one is kept."""
    values = iter([0.2, 0.9, 0.1, 0.3, 0.2, 0.1])
    monkeypatch.setattr("visdial_lab.finetune._mrr", lambda *_: next(values))
    val = VisDial.load(course, "val")[:2]
    made = finetune(settings(training__metric_for_best_model="mrr"), rows, "best", val)
    assert [row["step"] for row in made["history"] if "eval_mrr" in row] == [2, 4, 6, 8, 10, 12]
    assert json.loads((course / "best" / "lab.json").read_text())["best"] == 4
    plain = dict(training__lr_scheduler_type="constant", peft__lora_dropout=0.0)
    finetune(settings(training__num_train_epochs=1, **plain), rows, "four_steps")
    long = settings(training__metric_for_best_model="mrr", **plain)
    values = iter([0.2, 0.9, 0.1, 0.3, 0.2, 0.1])
    finetune(long, rows, "best_of_twelve", val)
    assert weights(course / "best_of_twelve") == weights(course / "four_steps")


def test_mrr_cannot_be_watched_without_options(course, rows):
    """Said at once: the trainer itself would only miss it at the first checkpoint."""
    document = json.loads((course / "visdial_1.0_val.json").read_text())
    for dialog in document["data"]["dialogs"]:
        for turn in dialog["dialog"]:
            del turn["answer_options"], turn["gt_index"]
    (course / "bare.json").write_text(json.dumps(document))
    val, calls = VisDial.load("bare.json")[:2], []
    with pytest.raises(UserError, match=r"metric_for_best_model mrr.*bare.json.*no options"):
        finetune(
            settings(training__metric_for_best_model="mrr"), rows, "adapter", val, lambda *_: calls.append(1)
        )
    assert not calls and not (course / "adapter.training").exists()
    made = finetune(settings(training__max_steps=2), rows, "adapter", val)  # the loss can be watched
    assert [row["step"] for row in made["history"] if "eval_loss" in row] == [2]


def test_mrr_is_that_of_the_ranking_engine(course, rows):
    from visdial_lab.metrics import evaluate
    from visdial_lab.ranking import score_dialogs

    val = VisDial.load(course, "val")[:3]
    made = finetune(settings(training__save_steps=12), rows, "adapter", val)
    model, processor = load_model("adapter")
    expected = evaluate(val, score_dialogs(model, processor, list(val)))["metrics"]["mrr"]
    assert [row["eval_mrr"] for row in made["history"] if "eval_mrr" in row] == [
        pytest.approx(expected, abs=1e-6)
    ]


def test_early_stopping(course, rows, monkeypatch):
    values = iter([0.5, 0.4, 0.3, 0.6])
    monkeypatch.setattr("visdial_lab.finetune._mrr", lambda *_: next(values))
    patient = settings(
        training__metric_for_best_model="mrr",
        training__early_stopping_patience=2,
        training__num_eval_dialogs=2,
    )
    made = finetune(patient, rows, "adapter", VisDial.load(course, "val")[:2])
    assert max(row["step"] for row in made["history"]) == 6


def test_accumulated_steps_are_one_larger_step(course, rows):
    """2 × 2 gives the losses and nearly the weights of 1 × 4: the mean is over tokens, not over batches."""
    plain = dict(peft__lora_dropout=0.0, training__num_train_epochs=2, training__group_by_length=False)
    large = finetune(settings(**plain, training__per_device_train_batch_size=4), rows, "large")
    small = finetune(
        settings(**plain, training__per_device_train_batch_size=2, training__gradient_accumulation_steps=2),
        rows,
        "small",
    )
    losses = [[row["loss"] for row in made["history"]] for made in (large, small)]
    norms = [[row["grad_norm"] for row in made["history"]] for made in (large, small)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


def test_last_answers_only(course, rows):
    """The usual recipe, by `generation.rounds: last`: another loss from the first step on."""
    single = list(records(VisDial.load(course, "train"), rounds="last"))
    first = [
        finetune(settings(), made, name)["history"][0]["loss"] for made, name in ((rows, "a"), (single, "b"))
    ]
    assert first[0] != first[1]


def test_too_long_dialogs(course, rows, capsys):
    lengths = {}
    long = rows[0] | {"messages": [*rows[0]["messages"], *rows[0]["messages"][2:] * 6]}
    with pytest.raises(UserError, match=rf"{long['id']} has \d+ tokens.*\(1 of 4 records are longer\)"):
        finetune(settings(training__max_seq_length=150), [long, *rows[1:]], "adapter")
    for way, expected in (("drop_rounds", 4), ("skip", 3)):
        limited = settings(training__max_seq_length=150, training__on_too_long=way, training__max_steps=1)
        finetune(limited, [long, *rows[1:]], way)
        lengths[way] = json.loads((course / way / "lab.json").read_text())["records"]["trained"]
        assert lengths[way] == expected
        assert "records: 1 of 4 were above 150 tokens" in capsys.readouterr().err
    with pytest.raises(UserError, match="nothing is left"):
        finetune(settings(training__max_seq_length=10, training__on_too_long="skip"), rows, "none")


def test_missing_pictures_are_counted(course, rows):
    for row in rows[1:3]:
        (course / row["image"]).unlink()
    with pytest.raises(
        UserError, match=rf"{rows[1]['id']}: image not found.*\n\(2 of 4 records; the next is"
    ):
        finetune(settings(), rows, "adapter")


@pytest.mark.slow
def test_pictures_are_opened_by_workers(course, rows):
    alone = finetune(settings(), rows, "alone")
    helped = finetune(settings(training__dataloader_num_workers=2), rows, "helped")
    assert curve(helped) == curve(alone)


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [0, 3])
def test_compiled_layers_give_the_same_losses(course, rows, negatives):
    short = dict(training__max_steps=2, peft__lora_dropout=0.0, training__negatives=negatives)
    plain = finetune(settings(**short), rows, "plain")
    fused = finetune(settings(**short, training__torch_compile=True), rows, "fused")
    losses = [[row["loss"] for row in made["history"]] for made in (plain, fused)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [0, 5])
def test_two_processes_share_every_batch(course, negatives):
    """Two processes of batch 1 train as one process with batch 2; with wrong answers too, the same ones."""
    profile = {"data": {"root": str(course), "val_split": "val"}}
    more = {"peft.lora_dropout": 0.0, "training.num_eval_dialogs": 2, "training.negatives": negatives}
    for key, value in (LONG | more).items():
        section, _, name = key.partition(".")
        profile.setdefault(section, {})[name] = value
    (course / "mine.yaml").write_text(json.dumps(profile))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29611",
    ]
    command = ["-m", "visdial_lab", "finetune", "--config", "mine.yaml", "--output-dir"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*launch, *command, "two"], cwd=course, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    subprocess.run(
        [sys.executable, *command, "one", "--batch-size", "2"], cwd=course, check=True, capture_output=True
    )
    one, two = (json.loads((course / name / "history.json").read_text()) for name in ("one", "two"))
    assert json.loads((course / "two" / "lab.json").read_text())["made_from"]["processes"] == 2
    for key in ("loss", "eval_loss", "eval_mrr") + (("contrastive_loss",) if negatives else ()):
        values = [[row[key] for row in history if key in row] for history in (one, two)]
        assert values[0] and values[1] == pytest.approx(values[0], rel=2e-2), key
    assert ran.stderr.count("fine-tuning: 6 of 6") == 1  # one process speaks for both


@pytest.mark.parametrize(
    ("error", "reserved", "others"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 15.5, ""),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
            8,
            r" \(other programs on this GPU hold 8.0\)",
        ),
    ],
)
def test_out_of_memory_says_what_to_lower(course, rows, monkeypatch, error, reserved, others):
    from trl import SFTTrainer

    def burst(*_, **__):
        raise error

    monkeypatch.setattr(SFTTrainer, "train", burst)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 16 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: int(reserved * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 15 * 2**30)
    with pytest.raises(
        WorkFailed, match=rf"15.0 GiB of 16.0 in use{others} with 4 dialogs of up to \d+ tokens"
    ) as told:
        finetune(settings(training__per_device_train_batch_size=4), rows, "adapter")
    assert "per_device_train_batch_size 4 → 2 with gradient_accumulation_steps 1 → 2" in str(told.value)
    assert "use_gradient_checkpointing true" in str(told.value) and "load_in_4bit true" in str(told.value)


def test_another_runtime_error_is_not_called_memory(course, rows, monkeypatch):
    from trl import SFTTrainer

    def burst(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(SFTTrainer, "train", burst)
    with pytest.raises(RuntimeError, match="shapes differ"):
        finetune(settings(), rows, "adapter")


# Unsloth itself needs a GPU; what it is given is looked at here, and that every key reaches one of the two.


@pytest.fixture
def unsloth(monkeypatch):
    """A stand-in for the package on a machine with a GPU: it notes what it is called with."""
    calls = {}

    class FastModel:
        @staticmethod
        def from_pretrained(name, **options):
            calls["load"] = {"name": name} | options
            return types.SimpleNamespace(config=types.SimpleNamespace(model_type="gemma3")), None

        @staticmethod
        def get_peft_model(model, **options):
            calls["lora"] = options
            return model

    monkeypatch.setitem(sys.modules, "unsloth", types.SimpleNamespace(FastModel=FastModel, __spec__=object()))
    monkeypatch.setattr(backends, "pick_device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    return calls


def test_unsloth_is_given_every_key(course, unsloth):
    processor = load_processor(course / "base")
    config = load_config("gemma3-4b", {"model.name": "base", "peft.r": 8, "peft.use_rslora": True})
    assert backends.choose_backend(config) == "peft"  # what the profile says
    config = load_config("gemma3-4b", {"model.name": "base", "training.backend": "auto", "peft.r": 8})
    assert backends.choose_backend(config) == "unsloth"
    backends.check_settings(config, "unsloth")
    backends.trainable_model(config, "unsloth", processor)
    loaded, lora = unsloth["load"], unsloth["lora"]
    assert loaded["name"] == str(course / "base") and loaded["max_seq_length"] == 1024
    assert loaded["load_in_4bit"] is False and loaded["use_gradient_checkpointing"] is False
    assert lora["target_modules"] == backends.lora_targets(config, sees=True)
    for key in ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora"):
        assert lora[key] == getattr(config.peft, key), key
    assert lora["random_state"] == config.training.seed
    small = load_config("gemma3-4b-t4", {"model.name": "base"})
    backends.trainable_model(small, "unsloth", processor)
    assert unsloth["load"]["load_in_4bit"] and unsloth["load"]["dtype"] == torch.float16
    assert (
        unsloth["load"]["use_gradient_checkpointing"]
        == "unsloth"
        == unsloth["lora"]["use_gradient_checkpointing"]
    )


def test_every_key_is_honoured_or_refused():
    """The keys that one of the stations takes by name, beside those that the trainer takes whole."""
    import inspect

    from visdial_lab import finetune as module
    from visdial_lab import training_data

    config = load_config("scenes")
    source = "".join(inspect.getsource(part) for part in (module, backends, training_data))
    source += inspect.getsource(load_model.__globals__["load_base_for_training"])
    from trl import SFTConfig

    trainer = set(inspect.signature(SFTConfig).parameters)
    for section in ("model", "peft", "training"):
        for key in config.model_dump()[section]:
            if key not in ("output_dir", "num_eval_dialogs"):  # the commands' own business
                assert key in trainer or re.search(rf"\b{key}\b", source), f"{section}.{key} does nothing"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"training.bf16": True}, "profile scenes trains in half precision, which needs a CUDA GPU"),
        ({"training.backend": "unsloth"}, 'training.backend is "unsloth", which needs a CUDA GPU'),
        ({"training.report_to": "wandb"}, "training.report_to wandb: pip install wandb"),
    ],
)
def test_refused_here(course, rows, overrides, complaint, monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=re.escape(complaint)):
        finetune(load_config("scenes", LONG | overrides), rows, "adapter")


def test_the_command_names_the_gpu_before_the_data(tmp_path, monkeypatch, capsys):
    """On a laptop neither is there: sending someone to fetch data first would cost him a day."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["finetune", "--config", "gemma3-4b"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "Here the profile scenes runs" in error
    assert error.startswith("error: profile gemma3-4b trains in half precision, which needs a CUDA GPU")


def test_refused_on_a_gpu(course, unsloth, monkeypatch):
    config = load_config("gemma3-4b", {"training.backend": "unsloth", "peft.bias": "lora_only"})
    with pytest.raises(UserError, match=r"peft.bias lora_only"):
        backends.check_settings(config, "unsloth")
    with pytest.raises(UserError, match=r"fp16 needs model.load_in_4bit"):
        backends.check_settings(load_config("gemma3-4b-t4", {"model.load_in_4bit": False}), "peft")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(UserError, match=r"no bfloat16; take fp16 \(profile gemma3-4b-t4"):
        backends.check_settings(config, "peft")


def test_unsloth_is_not_taken_where_it_lacks_masks(unsloth):
    asked = {"training.backend": "auto", "training.negatives": 3}
    assert backends.choose_backend(load_config("gemma3-4b", asked)) == "peft"
    with pytest.raises(UserError, match=r"training.negatives needs .* Unsloth.*backend peft"):
        backends.check_settings(load_config("gemma3-4b", asked | {"training.backend": "unsloth"}), "unsloth")


def test_unsloth_that_cannot_be_imported(course, tmp_path, monkeypatch, capsys):
    """Asked for, it is an error that says what to do; auto says so and takes PEFT."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "unsloth.py").write_text("raise RuntimeError('no kernels for this card')\n")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    monkeypatch.setattr(backends, "pick_device", lambda: "cuda")
    with pytest.raises(UserError, match=r'RuntimeError: no kernels.*set training.backend to "peft"'):
        backends.choose_backend(load_config("gemma3-4b", {"training.backend": "unsloth"}))
    assert backends.choose_backend(load_config("gemma3-4b", {"training.backend": "auto"})) == "peft"
    assert "no kernels for this card): training with PEFT" in capsys.readouterr().err


def test_keys_that_contradict_each_other():
    with pytest.raises(UserError, match=r"save_steps \(5\) is no multiple of logging_steps \(2\)"):
        load_config("scenes", {"training.save_steps": 5, "training.logging_steps": 2})
    with pytest.raises(UserError, match="early_stopping_patience needs"):
        load_config("scenes", {"training.early_stopping_patience": 2})


def test_batches_of_similar_length():
    """Every record once; less spread inside a batch than by chance; an order of its own for each epoch."""
    from visdial_lab.training_data import by_length

    lengths = [(37 * number) % 101 + 50 for number in range(203)]
    sampler = by_length(lengths, 8, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(203)) and len(sampler) == 203 and first == list(sampler)

    def spread(order):
        batches = [[lengths[n] for n in order[place : place + 8]] for place in range(0, 200, 8)]
        return sum(max(batch) - min(batch) for batch in batches) / len(batches)

    assert spread(first) < 0.25 * spread(range(203))
    assert lengths[first[0]] == max(lengths)  # a lack of memory shows at once
    sampler.set_epoch(1)
    assert list(sampler) != first and list(by_length(lengths, 8, seed=2)) != first


def test_records_with_reminders_are_not_taken_for_plain_ones(course, rows):
    rows[2]["messages"][1]["content"] = "<reminder>a red dog</reminder> yes"
    with pytest.raises(UserError, match=f"{rows[2]['id']} holds reminders.*--style reminder"):
        finetune(settings(), rows, "adapter")
