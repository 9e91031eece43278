"""The profile: a YAML file becomes one frozen, typed Config; a mistake is an error that names its place."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from visdial_lab.errors import UserError, nearest, shown
from visdial_lab.files import read_text, resolve


def _number(value: Any) -> Any:
    """YAML 1.1 and papermill hand over `1e-4` as text: read it as the number that is meant."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]*$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]


class Section(BaseModel):
    """Common rules: strict types (no True for 1, no "8" for 8), no unknown keys, no NaN, no changes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Section):
    """Which base model, and how it is held in memory."""

    name: Text
    load_in_4bit: bool
    use_gradient_checkpointing: bool


class Peft(Section):
    """Which layers get LoRA matrices, and their size."""

    finetune_vision_layers: bool
    finetune_language_layers: bool
    finetune_attention_modules: bool
    finetune_mlp_modules: bool
    r: Count
    lora_alpha: Count
    lora_dropout: Annotated[Number, Field(lt=1)]
    bias: Literal["none", "all", "lora_only"]
    use_rslora: bool

    @model_validator(mode="after")
    def _something_is_trained(self):
        layers = self.finetune_vision_layers or self.finetune_language_layers
        if not (layers and (self.finetune_attention_modules or self.finetune_mlp_modules)):
            raise ValueError(
                "nothing to train: set one of finetune_*_layers and one of finetune_*_modules true"
            )
        return self


class Training(Section):
    """Optimisation, in the words of transformers' TrainingArguments."""

    per_device_train_batch_size: Count
    gradient_accumulation_steps: Count
    warmup_steps: Annotated[int, Field(ge=0)]
    learning_rate: Positive
    fp16: bool
    bf16: bool
    logging_steps: Count
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"]
    weight_decay: Number
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    max_seq_length: Count
    num_train_epochs: Positive
    max_steps: Literal[-1] | Count
    seed: Seed
    output_dir: Text
    backend: Literal["auto", "unsloth", "peft"]
    on_too_long: Literal["refuse", "drop_rounds", "skip"]
    group_by_length: bool
    torch_compile: bool
    dataloader_num_workers: Annotated[int, Field(ge=0)]
    save_steps: Count | None
    num_eval_dialogs: Annotated[int, Field(ge=0)]
    metric_for_best_model: Literal["loss", "mrr"]
    early_stopping_patience: Count | None
    report_to: Literal["none", "tensorboard", "wandb"]
    negatives: Annotated[int, Field(ge=0, le=99)]
    contrastive_weight: Positive

    @model_validator(mode="after")
    def _keys_agree(self):
        if self.fp16 and self.bf16:
            raise ValueError("fp16 and bf16 are both true: choose one")
        if self.save_steps and self.save_steps % self.logging_steps:
            raise ValueError(
                f"save_steps ({self.save_steps}) is no multiple of logging_steps ({self.logging_steps}): the "
                "loss curve of a resumed run would have a gap"
            )
        if self.early_stopping_patience and not (self.save_steps and self.num_eval_dialogs):
            raise ValueError("early_stopping_patience needs save_steps and num_eval_dialogs: what to watch")
        return self


class Data(Section):
    """Where the dialogs are, and how many of them are used (null = all)."""

    root: Text
    train_split: Text
    val_split: Text
    num_train_dialogs: Count | None
    num_val_dialogs: Count | None


class Generation(Section):
    """How training records are made (sample_count null = all dialogs), and so how a model answers."""

    sample_count: Count | None
    rounds: Literal["all", "last", "random"] | Count
    seed: Seed
    style: Literal["plain", "reminder"]


class Inference(Section):
    """How answers are decoded."""

    max_new_tokens: Count
    temperature: Number
    top_p: Annotated[Positive, Field(le=1)]


class Evaluation(Section):
    """Intervals, memory for ranking (GiB beside the weights; null = all) and the report's examples."""

    bootstrap_samples: Count
    confidence: Annotated[Positive, Field(lt=1)]
    seed: Seed
    memory_gb: Positive | None
    examples: Annotated[int, Field(ge=0)]


class Notebooks(Section):
    """How papermill runs the notebooks (timeout in seconds a cell)."""

    kernel_name: Text
    timeout: Count
    output_dir: Text


class Config(Section):
    """One run, whole: everything the notebooks and the commands need to know."""

    name: Text
    model: Model
    peft: Peft
    training: Training
    data: Data
    generation: Generation
    inference: Inference
    evaluation: Evaluation
    notebooks: Notebooks


_PROFILES = Path(__file__).parent / "configs"
_SECTIONS = {
    name: part.annotation.model_fields for name, part in Config.model_fields.items() if name != "name"
}
_KEYS = ["name", *(f"{section}.{key}" for section, keys in _SECTIONS.items() for key in keys)]


def profile_names() -> list[str]:
    """The profiles that come with the package, by name."""
    return sorted(file.stem for file in _PROFILES.glob("*.yaml"))


def load_config(name_or_path: str | Path = "scenes", overrides: dict[str, Any] | None = None) -> Config:
    """Read a profile (by name) or a YAML file, lay `overrides` over it, and check everything.

    Keys that a file leaves out come from the profile it names as `base:` (default: scenes).
    `overrides` has dotted keys: {"training.learning_rate": 1e-4}.
    Raises UserError for an unknown profile, YAML that cannot be read, an unknown key, a wrong type or value.
    """
    layers = [*_layers(str(name_or_path)), ("override", overrides or {})]
    given = {key: (value, source) for source, tree in layers for key, value in _flatten(tree, source)}
    values = {"name": given["name"][0]}
    for section, keys in _SECTIONS.items():
        values[section] = {key: given[f"{section}.{key}"][0] for key in keys}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_describe(error, given, layers[-2][0])) from None


def flat(config: Config) -> dict[str, Any]:
    """Every key and its value, as `overrides` of `load_config` takes them: {"training.max_steps": -1, …}."""
    return dict(_flatten(config.model_dump(), config.name))


def config_to_yaml(config: Config) -> str:
    """The whole config as YAML that `load_config` reads back to an equal one (for run folders)."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def _layers(name: str) -> list[tuple[str, dict]]:
    """The YAML files to lay over each other, the base first: [(file name, its content)]."""
    profiles = profile_names()
    known = f"the profiles are: {', '.join(profiles)} (or give the path of a .yaml file)"
    path, source = _PROFILES / f"{name}.yaml", f"{name}.yaml"
    if name not in profiles:
        if not name.endswith((".yaml", ".yml")) and os.sep not in name:
            raise UserError(f"unknown profile {shown(name)}{nearest(name, profiles)}; {known}")
        path = resolve(name)
        source = str(path)
    tree = _parse(read_text(path, "config"), source)
    base = tree.pop("base", None if source == "scenes.yaml" else "scenes")
    if base is not None and base not in profiles:
        raise UserError(f"{source}: unknown base {shown(base)}; {known}")
    return [*(_layers(base) if base else []), (source, {"name": path.stem} | tree)]


class _Loader(yaml.SafeLoader):
    """Plain YAML would let the second of two equal keys win without a word; here that is an error."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"key {key.value!r} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(text: str, source: str) -> dict:
    try:
        tree = yaml.load(text, Loader=_Loader)
    except Exception as error:  # PyYAML lets ValueError, AttributeError, RecursionError … out on odd input
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{source}{place}: not valid YAML ({reason})") from None
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"{source}: expected sections such as `training:`, got {shown(tree)}")
    return tree or {}


def _flatten(tree: dict, source: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every leaf; raise UserError at a key that does not exist."""
    for key, value in tree.items():
        if key in _SECTIONS:
            if value is not None and not isinstance(value, dict):
                raise UserError(f"{source}: {key} is a section of keys, got {shown(value)}")
            yield from _flatten({f"{key}.{leaf}": inner for leaf, inner in (value or {}).items()}, source)
        elif key in _KEYS:
            yield key, value
        else:
            raise UserError(f"{source}: unknown key {shown(key)}{nearest(str(key), [*_KEYS, *_SECTIONS])}")


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text without control characters",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge} up",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number up to {le}",
}


def _describe(error: ValidationError, given: dict[str, tuple], source: str) -> str:
    """The first mistake as one line: where, what was expected (any of several, in a union), what is there."""
    mistakes = error.errors(include_url=False)
    first, key = mistakes[0], ".".join(mistakes[0]["loc"][:2])
    where = f"{given[key][1] if key in given else source}: {key}"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    alternatives = [one for one in mistakes if one["loc"][:2] == first["loc"][:2]]
    expected = [_EXPECTED.get(one["type"], one["msg"]).format(**one.get("ctx", {})) for one in alternatives]
    return f"{where}: expected {' or '.join(expected)}, got {shown(first['input'])}"
