"""Two ways to a model that can be trained: PEFT on transformers, or Unsloth's faster kernels.

Both give the same thing, a PEFT model over frozen weights, and so the same adapter files.
"""

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from visdial_lab.chat import takes_images
from visdial_lab.config import Config
from visdial_lab.errors import UserError
from visdial_lab.models import load_base_for_training, pick_device, tell_tags_apart, training_base
from visdial_lab.progress import say

_REMEMBERED = 2**28  # numbers of image features to keep: 1 GB in float32


def choose_backend(config: Config) -> str:
    """ "unsloth" or "peft", as `training.backend` says; auto takes Unsloth when GPU and package are there,
    but PEFT with `training.negatives`, for which Unsloth has no masks.

    Unsloth is imported here, because it wants to be there before transformers. Raises UserError when it is
    asked for and cannot be had; auto says so and goes on with PEFT.
    """
    backend, on_gpu = config.training.backend, pick_device() == "cuda"
    installed = importlib.util.find_spec("unsloth") is not None
    if backend == "unsloth" and not (on_gpu and installed):
        lacking = "is not installed (pip install 'visdial-lab[gpu]')" if on_gpu else "needs a CUDA GPU"
        raise UserError(f'training.backend is "unsloth", which {lacking}; use "peft" (or "auto")')
    if backend == "peft" or not (on_gpu and installed) or (backend == "auto" and config.training.negatives):
        return "peft"
    cache = Path(tempfile.gettempdir()) / "unsloth_compiled_cache"  # by default it would lie in the course
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache))
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ["UNSLOTH_COMPILE_DISABLE"] = "0" if config.training.torch_compile else "1"
    try:
        importlib.import_module("unsloth")
    except Exception as error:  # whatever its patches run into here; PEFT trains the same adapter
        reason = f"Unsloth cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        if backend == "unsloth":
            raise UserError(f'{reason}; set training.backend to "peft"') from error
        say(f"{reason}: training with PEFT")
        return "peft"
    return "unsloth"


def check_device(config: Config) -> None:
    """Refuse a GPU's profile where there is no GPU: the first thing to know, before data is looked for."""
    if (config.training.fp16 or config.training.bf16) and pick_device() == "cpu":
        raise UserError(
            f"profile {config.name} trains in half precision, which needs a CUDA GPU, and there is none. "
            "Here the profile scenes runs, or this one with\n"
            "training: {fp16: false, bf16: false} (float32) and training.optim adamw_torch, if memory allows"
        )


def check_settings(config: Config, backend: str) -> None:
    """Every setting is honoured or refused with its reason, before anything is loaded."""
    import torch

    check_device(config)
    training = config.training
    on_gpu = pick_device() == "cuda"
    if on_gpu and training.bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("training.bf16: this GPU has no bfloat16; take fp16 (profile gemma3-4b-t4 does)")
    if training.fp16 and not config.model.load_in_4bit:
        raise UserError(
            "training.fp16 needs model.load_in_4bit: Gemma-3's activations overflow float16, so everything "
            "but the 4-bit products is kept in float32"
        )
    if not on_gpu and training.optim in ("paged_adamw_8bit", "adamw_torch_fused"):
        raise UserError(f"training.optim {training.optim} needs a GPU; use adamw_torch or adamw_8bit")
    if config.peft.bias == "all" and config.model.load_in_4bit:
        raise UserError('peft.bias "all" cannot be merged into 4-bit layers; use "none" or "lora_only"')
    if backend == "unsloth" and config.peft.bias != "none":
        raise UserError(
            f'peft.bias {config.peft.bias} is not what Unsloth trains; use "none", or backend peft'
        )
    if training.negatives and backend == "unsloth":
        raise UserError(
            "training.negatives needs attention masks of its own, which Unsloth's layers do not take; "
            "use training.backend peft (or auto)"
        )
    if training.negatives and config.generation.style == "reminder":
        raise UserError(
            "training.negatives needs generation.style plain: a reminder belongs to its own picture, so one "
            "before a wrong answer would give it away"
        )
    if training.report_to != "none" and importlib.util.find_spec(training.report_to) is None:
        raise UserError(f"training.report_to {training.report_to}: pip install {training.report_to}")


def lora_targets(config: Config, sees: bool) -> str:
    """The modules that get LoRA matrices, as a pattern over their full names.

    Gemma-3 with a vision tower: model.language_model.layers.N.self_attn.q_proj …,
    model.vision_tower….layers.N.mlp.fc1 …; text-only: model.layers.N.self_attn.q_proj …. Raises UserError
    when nothing would be trained.
    """
    peft = config.peft
    towers, kinds = [], []
    if peft.finetune_language_layers:
        towers.append(r"model\.(?:language_model\.)?layers")
    if peft.finetune_vision_layers and sees:
        towers.append(r"model\.vision_tower\..*layers")
    if peft.finetune_attention_modules:
        kinds.append(r"self_attn\.(?:q_proj|k_proj|v_proj|o_proj|out_proj)")
    if peft.finetune_mlp_modules:
        kinds.append(r"mlp\.(?:gate_proj|up_proj|down_proj|fc1|fc2)")
    if not towers or not kinds:
        raise UserError(
            "peft: nothing to train; this model needs finetune_language_layers and attention or mlp modules"
        )
    return rf"(?:{'|'.join(towers)})\.\d+\.(?:{'|'.join(kinds)})"


def trainable_model(config: Config, backend: str, processor: Any) -> Any:
    """The frozen base model with LoRA matrices drawn from `training.seed`, a PEFT model."""
    from transformers import set_seed

    model = (_unsloth_base if backend == "unsloth" else load_base_for_training)(config, processor)
    lora = config.peft.model_dump(include={"r", "lora_alpha", "lora_dropout", "bias", "use_rslora"})
    lora["target_modules"] = lora_targets(config, takes_images(processor))
    set_seed(config.training.seed)
    if backend == "unsloth":
        from unsloth import FastModel

        return FastModel.get_peft_model(
            model,
            **lora,
            use_gradient_checkpointing=_unsloth_checkpointing(config),
            random_state=config.training.seed,
        )
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(**lora, task_type="CAUSAL_LM"))


def compile_layers(model: Any) -> None:
    """Compile every transformer layer by itself, so that all of a tower share their kernels.

    On an H100 a step of Gemma-3-4b takes 0.62 of its time and 0.6 of its memory: what lies between the matrix
    products (norms, rotations, LoRA's additions) is then few kernels instead of many.
    """
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer

    torch._dynamo.config.recompile_limit = 64  # lengths, both kinds of attention, training and evaluation
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile()


def look_once(model: Any, pictures: int) -> None:
    """A frozen vision tower says the same about a picture in every epoch: keep it, if memory allows."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    if pictures * model.config.mm_tokens_per_image * model.config.get_text_config().hidden_size > _REMEMBERED:
        return
    look, remembered = model.model.get_image_features, {}

    def look_once(pixel_values: Any, **options: Any) -> Any:
        keys = [hashlib.sha256(picture.float().cpu().numpy()).digest() for picture in pixel_values]
        fresh = [place for place, key in enumerate(keys) if key not in remembered]
        if fresh:
            with torch.no_grad():
                features = look(pixel_values[fresh], **options).pooler_output  # [fresh, tokens, width]
            remembered.update(zip([keys[place] for place in fresh], features, strict=True))
        return BaseModelOutputWithPooling(pooler_output=torch.stack([remembered[key] for key in keys]))

    model.model.get_image_features = look_once


def _unsloth_checkpointing(config: Config) -> str | bool:
    return "unsloth" if config.model.use_gradient_checkpointing else False


def _unsloth_base(config: Config, processor: Any) -> Any:
    """The base model through Unsloth, which replaces parts of transformers by its own kernels."""
    import torch
    from unsloth import FastModel

    model, _ = FastModel.from_pretrained(
        str(training_base(config)),
        max_seq_length=config.training.max_seq_length,
        # for Gemma-3 Unsloth takes float16 to mean: float32 wherever float16 would overflow
        dtype=torch.float16 if config.training.fp16 else None,
        load_in_4bit=config.model.load_in_4bit,
        use_gradient_checkpointing=_unsloth_checkpointing(config),
        random_state=config.training.seed,
    )
    if config.generation.style == "reminder":
        tell_tags_apart(model, processor)
    return model
