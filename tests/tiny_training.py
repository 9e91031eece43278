"""What tests of fine-tuning share: settings for a tiny model, a kill from inside, what a training leaves."""

from pathlib import Path

from visdial_lab.config import Config, load_config

QUICK = {
    "model.name": "base",
    "peft.r": 4,
    "training.warmup_steps": 0,
    "training.learning_rate": 0.02,
    "training.logging_steps": 1,
}


class Stop(BaseException):
    """What a kill looks like from inside, in a test that cannot afford a new process."""


def quick_config(settings: dict, **overrides) -> Config:
    """The profile `scenes` with `settings`, then `overrides`: keywords with `__` for the dot of a key."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config("scenes", settings | dotted)


def curve(made: dict) -> list[tuple]:
    """The losses and scores of a training, step by step, without its times."""
    keys = ("step", "loss", "contrastive_loss", "eval_loss", "eval_mrr")
    return [tuple(row.get(key) for key in keys) for row in made["history"]]


def weights(folder: Path) -> bytes:
    """The adapter's weights as they lie in `folder`."""
    return (folder / "adapter_model.safetensors").read_bytes()
