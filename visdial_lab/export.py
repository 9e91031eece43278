"""An adapter and its base model become one ordinary model, for Transformers, vLLM, Ollama and whoever reads
safetensors.

An adapter trained on a base model in 4 bits is merged into the unpacked 4-bit weights, not into the original
ones: it has learnt to make up for the rounding to NF4 too, and was measured with it. So the merged model says
what the adapter says.
"""

import shutil
from pathlib import Path
from typing import Any

import jinja2

from visdial_lab import __version__
from visdial_lab.chat import takes_images
from visdial_lab.errors import UserError
from visdial_lab.files import atomic_folder, portable, read_json, resolve, write_json, write_text
from visdial_lab.models import base_of, load_model

MARKER = "export.json"  # by this file a folder is known as ours, and may be replaced
_OLLAMA_LAYERS = {34, 48, 62}  # Ollama tells the heads of a Gemma-3 that sees by these: 4b, 12b, 27b


def export(model_path: str | Path, output_dir: str | Path) -> list[str]:
    """Merge an adapter into its base model and write the folder of an ordinary one: safetensors in bfloat16,
    processor, model card, Modelfile, and export.json with the adapter's lab.json in it.

    Returns what Ollama will miss in it; [] when nothing. Raises UserError for a base model, for an adapter or
    base that is missing or damaged, and for an output folder that holds something else.
    """
    base, adapter = base_of(model_path), resolve(model_path)
    if base in (adapter, model_path):
        raise UserError(f"{model_path} is no adapter: there is nothing to merge, it can be used as it is")
    with atomic_folder(output_dir, marker=MARKER) as folder:
        model, processor = load_model(model_path, merge=True)
        _save(model, processor, base, folder)
        missing = _missing_for_ollama(model, processor, folder)
        notes = adapter / "lab.json"  # an adapter trained elsewhere has none
        lab = read_json(notes, "adapter's notes") if notes.is_file() else {}
        name = str(base) if isinstance(base, str) else portable(base)
        write_json(folder / MARKER, {"base_model": name, "adapter": lab, "visdial_lab": __version__})
        _describe(folder, name, isinstance(base, str), lab, takes_images(processor), missing)
    return missing


def _save(model: Any, processor: Any, base: Path | str, folder: Path) -> None:
    import torch
    from transformers.utils import cached_file

    model.to(torch.bfloat16).save_pretrained(str(folder), max_shard_size="4GB")
    _use_published_names(folder)
    processor.save_pretrained(str(folder))
    # Ollama puts <bos> in front only if the file says so; here the chat template has it already.
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", config | {"add_bos_token": True})
    vocabulary = cached_file(base, "tokenizer.model", _raise_exceptions_for_missing_entries=False)
    if vocabulary is not None:  # Ollama needs the scores in it to cut text as Gemma does
        shutil.copyfile(vocabulary, folder / "tokenizer.model")


def _use_published_names(folder: Path) -> None:
    """Name the weights of the vision tower as in Google's files, for Ollama: Transformers 5 drops a part of
    the name, and reads both."""
    from safetensors.torch import load_file, save_file

    def published(name: str) -> str:
        short, full = "vision_tower.", "vision_tower.vision_model."
        return name.replace(short, full, 1) if name.startswith(short) and full not in name else name

    for shard in folder.glob("*.safetensors"):
        weights = load_file(shard)
        save_file({published(name): value for name, value in weights.items()}, shard, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = read_json(index)
        places = {published(name): shard for name, shard in content["weight_map"].items()}
        write_json(index, content | {"weight_map": places})


def _missing_for_ollama(model: Any, processor: Any, folder: Path) -> list[str]:
    missing = []
    if not (folder / "tokenizer.model").is_file():
        missing.append("the base model has no tokenizer.model, without which Ollama cuts text wrongly")
    layers = model.config.get_text_config().num_hidden_layers
    if takes_images(processor) and layers not in _OLLAMA_LAYERS:
        missing.append(
            f"with pictures, Ollama knows Gemma-3 4b, 12b and 27b only; this one has {layers} layers"
        )
    return missing


def _describe(folder: Path, base: str, on_hub: bool, lab: dict, sees: bool, missing: list[str]) -> None:
    """Write the model card and the Modelfile."""
    config, records = lab.get("config", {}), lab.get("records", {})
    peft, training = config.get("peft"), config.get("training")
    facts = {
        "base model's sha256": lab.get("base_model_sha256"),
        "trained on": records and f"{records['count']} dialogs ({records['path'] or 'from memory'})",
        "records' sha256": records.get("sha256"),
        "LoRA": peft and f"rank {peft['r']}, alpha {peft['lora_alpha']}",
        "learning rate": training and training["learning_rate"],
        "seed": lab.get("seed"),
        "versions": ", ".join(f"{name} {version}" for name, version in lab.get("versions", {}).items()),
        "merged by": f"visdial-lab {__version__} export",
    }
    facts |= {name.replace("_", " "): lab.get(name) for name in ("steps", "seconds", "device", "final_loss")}
    page = {
        "base": base,
        "on_hub": on_hub,
        "four_bit": config.get("model", {}).get("load_in_4bit"),
        "facts": {name: value for name, value in facts.items() if value not in (None, "", {})},
        "sees": sees,
        "missing": missing,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("visdial_lab"), trim_blocks=True, keep_trailing_newline=True
    )
    for name, template in (("README.md", "model_card.md"), ("Modelfile", "Modelfile")):
        write_text(folder / name, templates.get_template(template).render(page))
