"""Loading Gemma-3: a base model or an adapter on one, in 4 bits or not, on whatever this machine has."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visdial_lab.chat import CLOSE, OPEN, takes_images, tokenizer_of
from visdial_lab.config import Config
from visdial_lab.errors import UserError, counted, naming, shown
from visdial_lab.files import read_json, resolve

_FAMILIES = {"gemma3": "Gemma3ForConditionalGeneration", "gemma3_text": "Gemma3ForCausalLM"}


def silence() -> None:
    """Keep notices that ask nothing of the reader (progress of loading, optional packages) off the screen."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("bitsandbytes", "peft", "accelerate", "trl", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(torch|peft|bitsandbytes|trl|accelerate)\b")


def pick_device() -> str:
    """ "cuda" when there is a GPU that PyTorch can use, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(device: str) -> Any:
    """bfloat16 on a GPU that has it; float32 on the CPU, exact and fast enough there, and on old GPUs (T4).

    float16 is no choice: Gemma-3's activations overflow it. On an old GPU the 4-bit layers alone multiply in
    float16 (see `_load_base`), on inputs that a norm has just made small; all between them stays float32.
    """
    import torch

    if device.startswith("cuda") and torch.cuda.get_device_capability()[0] >= 8:
        return torch.bfloat16
    return torch.float32


def load_model(
    path_or_name: str | Path,
    load_in_4bit: bool | None = None,
    device: str | None = None,
    dtype: Any = None,
    merge: bool | None = None,
) -> tuple[Any, Any]:
    """Load a base model or an adapter folder for inference; returns (model in eval mode, processor).

    An adapter brings its base model along, in 4 bits if it was trained so; `load_in_4bit` overrides that.
    On the CPU NF4 weights are unpacked once, after loading: same values, same answers, less work in a step.
    merge: unpack, and add the adapter to the weights (None: on the CPU). False keeps LoRA's matrices apart,
    so that their share can still be changed.
    Raises UserError for a folder that is missing, holds no Gemma-3, or whose weights are damaged or
    incomplete.
    """
    silence()
    folder = _locate(path_or_name)
    base = base_of(folder)
    device = device or pick_device()
    adapted = base != folder
    if adapted and load_in_4bit is None and (folder / "lab.json").is_file():
        load_in_4bit = _needed(folder / "lab.json", "config", "model", "load_in_4bit")
    model = _load_base(base, bool(load_in_4bit), device, dtype)
    processor = load_processor(folder)
    merge = device == "cpu" if merge is None else merge
    if load_in_4bit and (merge or device == "cpu"):
        model = model.dequantize()
        model = model.float() if device == "cpu" else model
    if adapted:
        if answer_style(folder) == "reminder":
            tell_tags_apart(model, processor)
        model = _add_adapter(model, folder)
    if adapted and merge:
        model = model.merge_and_unload()  # the same sums with a fifth less work; float32 weights lose nothing
    return model.eval(), processor


def stored_weight(path_or_name: str | Path, ending: str) -> Any:
    """One matrix of a base model as it lies in its file, before anything is rounded: a float32 tensor.

    ending: how its name ends, as "layers.0.mlp.gate_proj.weight"; the first such in the language model.
    Raises UserError when the model has none.
    """
    from huggingface_hub import snapshot_download
    from safetensors import safe_open

    folder = _locate(path_or_name)
    if not isinstance(folder, Path):  # loaded before, so it lies in the hub's cache
        folder = Path(snapshot_download(folder, allow_patterns="*.safetensors"))
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no dictionary)
                if name.endswith(f".{ending}") and "vision" not in name:
                    return weights.get_tensor(name).float()
    raise UserError(f"{path_or_name} holds no weight {ending}")


def answer_style(model_path: str | Path, asked: str | None = None) -> str:
    """How a model answers, "plain" or "reminder": as asked, else as its adapter was trained (lab.json; merged
    into its base by `export`: export.json).

    Raises UserError for a style that there is not.
    """
    for name, *keys in (("lab.json",), ("export.json", "adapter")):
        if asked is None and (resolve(model_path) / name).is_file():
            asked = _entry(resolve(model_path) / name, *keys, "config", "generation", "style")
    if asked not in (None, "plain", "reminder"):
        raise UserError(f"style should be plain or reminder, is {shown(asked)}")
    return asked or "plain"


def sees(path_or_name: str | Path) -> bool:
    """Whether a base model or adapter looks at pictures, found out without loading it.

    Raises UserError as `load_model` does for a folder that holds no Gemma-3.
    """
    return _kind(base_of(_locate(path_or_name))) == "gemma3"


def without_wrapper(model: Any) -> Any:
    """The model itself, whether PEFT has wrapped it or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch off what a model does in training only (dropout), and leave it as it was found."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def load_base_for_training(config: Config, processor: Any) -> Any:
    """The base model as QLoRA needs it, packed to NF4 if the config says so.

    Each of several processes loads it to the GPU of its own.
    """
    import torch

    silence()
    folder, device = training_base(config), pick_device()
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    dtype = torch.float32 if config.training.fp16 else None
    model = _load_base(folder, config.model.load_in_4bit, device, dtype)
    for module in model.modules():  # where the CPU has AVX512-BF16, evaluating would round the scales of NF4
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if config.generation.style == "reminder":
        tell_tags_apart(model, processor)
    return model


def training_base(config: Config) -> Path | str:
    """Where the base model is. Raises UserError when it is missing, or an adapter."""
    folder = _locate(config.model.name)
    if _is_adapter(folder):
        raise UserError(f"model.name {config.model.name} is an adapter; fine-tuning starts from a base model")
    return folder


def tell_tags_apart(model: Any, processor: Any) -> None:
    """Give the tokens of the reminder's tags vectors of their own, where the base model has none.

    All tokens that pre-training never met end up with the same embedding, and the embedded model never met
    "<". Frozen, as QLoRA keeps it, no adapter could say which of them comes next. The new vectors are the
    same every time. A model that knows its tokens, as the real Gemma does, is left alone.
    """
    import torch

    tokenizer, weight = tokenizer_of(processor), model.get_input_embeddings().weight
    ids = sorted(set(tokenizer(OPEN + CLOSE, add_special_tokens=False)["input_ids"]))
    rows = torch.nn.functional.normalize(weight[ids].detach().float(), dim=1)
    alike = ((rows @ rows.T).fill_diagonal_(0) > 0.9).any(dim=1).tolist()
    chosen = [token for token, same in zip(ids, alike, strict=True) if same]
    drawn = torch.randn(len(chosen), weight.shape[1], generator=torch.Generator().manual_seed(0))
    length = weight.detach().float().norm(dim=1).mean().cpu()
    new = torch.nn.functional.normalize(drawn, dim=1) * length
    weight.data[chosen] = new.to(weight)


def _is_adapter(folder: Path | str) -> bool:
    return isinstance(folder, Path) and (folder / "adapter_config.json").is_file()


def base_of(path_or_name: Path | str) -> Path | str:
    """The base model of an adapter, as a folder or a hub name; a base model is its own.

    Raises UserError when one of the two is not there.
    """
    folder = _locate(path_or_name)
    if not _is_adapter(folder):
        return folder
    with naming(f"adapter {folder}, base model"):
        return _locate(_needed(folder / "adapter_config.json", "base_model_name_or_path"))


def _entry(path: Path, *keys: str) -> Any:
    """One entry of a JSON file of a model folder; None when it has no such."""
    value = read_json(path, "model description")
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _needed(path: Path, *keys: str) -> Any:
    """The same, or a UserError that names what is missing."""
    if (value := _entry(path, *keys)) is None:
        raise UserError(f"{path}: {'.'.join(keys)} is missing; is this a model folder?")
    return value


def _locate(path_or_name: str | Path) -> Path | str:
    """A folder on this machine, or the name of a model on the Hugging Face hub."""
    path = resolve(path_or_name)
    if path.is_dir():
        return path
    name = str(path_or_name)
    if path.exists() or not re.fullmatch(r"[\w-]+/[\w.-]+", name) or name.startswith(("data/", "runs/")):
        raise UserError(f"model folder not found: {name}; check the path (looked at {path})")
    return name


def _kind(folder: Path | str) -> str:
    """A base model's type, one of _FAMILIES."""
    if not isinstance(folder, Path):
        import transformers

        kind = _guarded(folder, transformers.AutoConfig.from_pretrained, folder).model_type
    elif (folder / "config.json").is_file():
        kind = _needed(folder / "config.json", "model_type")
    else:
        raise UserError(f"{folder} holds no model: config.json is missing")
    if kind not in _FAMILIES:
        raise UserError(
            f"{folder} holds a model of type {kind!r}; this course needs Gemma-3 ({', '.join(_FAMILIES)})"
        )
    return kind


def _load_base(folder: Path | str, four_bit: bool, device: str, dtype: Any = None) -> Any:
    import torch
    import transformers

    kind = _kind(folder)
    dtype = dtype or pick_dtype(device)
    packed = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float16 if dtype == torch.float32 and device != "cpu" else dtype,
        bnb_4bit_use_double_quant=device != "cpu",  # saves memory that a CPU has, costs time that it has not
    )
    model, report = _guarded(
        folder,
        getattr(transformers, _FAMILIES[kind]).from_pretrained,
        folder,
        dtype=dtype,
        device_map={"": device},
        quantization_config=packed if four_bit else None,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in the report, and refused just below
    )
    if wrong := report["mismatched_keys"]:
        raise UserError(f"{folder}: the weights do not fit config.json (first {min(wrong)[0]})")
    if missing := sorted(report["missing_keys"]):  # transformers would fill these with random numbers
        found = f"{counted(len(missing), 'weight')} missing (first {missing[0]})"
        raise UserError(f"{folder}: {found}; fetch the model again")
    return model


def load_processor(path_or_name: str | Path) -> Any:
    """What turns text and pictures into a model's input: a processor, or a text-only model's tokenizer.

    Raises UserError for files that are missing, damaged, or another kind of model's.
    """
    from transformers import AutoProcessor, AutoTokenizer

    silence()
    folder = _locate(path_or_name)
    kind = _kind(base_of(folder))
    processor = _guarded(
        folder, (AutoProcessor if kind == "gemma3" else AutoTokenizer).from_pretrained, folder
    )
    if takes_images(processor) != (kind == "gemma3"):
        raise UserError(f"{folder}: its processor files do not belong to a {kind} model")
    return processor


def _add_adapter(model: Any, folder: Path) -> Any:
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        adapted = _guarded(folder, PeftModel.from_pretrained, model, folder)
    if any("missing adapter keys" in str(notice.message) for notice in notices):
        raise UserError(f"adapter {folder}: some of its weights are missing; train or fetch it again")
    return adapted


def _guarded(folder: Path | str, load: Any, *arguments: Any, **options: Any) -> Any:
    """Call a loader; what is wrong with the files becomes a UserError that names the folder."""
    from safetensors import SafetensorError

    try:
        return load(*arguments, **options)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot load a model from {folder}: {reason}") from error
    except RuntimeError as error:  # shapes that do not fit; running out of memory is another matter
        if "size mismatch" not in str(error):
            raise
        raise UserError(f"cannot load a model from {folder}: its weights do not fit its config") from error
