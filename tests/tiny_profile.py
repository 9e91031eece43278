"""A profile on which all five notebooks run in a minute: a tiny model, eight scenes to train on, four more.

It says nothing about training; it shows that every cell runs, on the settings of a big profile too.
"""

from pathlib import Path

import yaml

# What a machine without a GPU cannot do, and what would only take time.
_HERE = {
    "training": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "warmup_steps": 0,
        "max_steps": 2,
        "logging_steps": 1,
        "save_steps": 2,
        "fp16": False,
        "bf16": False,
        "torch_compile": False,
        "dataloader_num_workers": 0,
    },
    "data": {"root": "data/scenes", "num_train_dialogs": 8, "num_val_dialogs": 4},
    "evaluation": {"bootstrap_samples": 50, "examples": 2},
    "notebooks": {"timeout": 300},
}


def write(folder: Path, base: str, model: Path) -> Path:
    """Write folder/BASE-tiny.yaml: the profile `base` with a tiny model, a few dialogs and two steps."""
    settings = _HERE | {"base": base, "name": f"{base}-tiny", "model": {"name": str(model)}}
    path = folder / f"{base}-tiny.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
