"""VisDial Lab: take a vision-language model from describing a picture to talking about it.

The main functions can be imported from here (`from visdial_lab import VisDial, load_config`). Each one
is fetched from its module on first use, so that `import visdial_lab` itself costs next to nothing.
"""

import os
from importlib import import_module

# An OpenMP thread that waits for work spins for milliseconds by default: ten times slower where other
# programs run too. A short spin is nearly as fast and does no harm. Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

__version__ = "0.1.0"

# Module → the names it offers here. Names that are also modules (finetune, generation …) are left out:
# `visdial_lab.finetune` must mean one thing only.
_OFFERS = {
    "errors": "UserError",
    "config": "load_config profile_names",
    "course": "setup",
    "visdial": "VisDial Dialog Round",
    "chat": "dialog_messages",
    "generation": "write_records read_records",
    "models": "load_model",
    "inference": "answer answer_dialogs",
    "ranking": "score_dialogs",
    "metrics": "evaluate validate_predictions",
}
_HOME = {name: module for module, names in _OFFERS.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'visdial_lab' has no attribute {name!r}")
    try:
        module = import_module(f"visdial_lab.{_HOME[name]}")
    except ModuleNotFoundError as error:  # most likely a notebook with another Python's kernel
        from visdial_lab.platforms import lacks

        raise lacks(error.name) from None
    value = getattr(module, name)
    globals()[name] = value  # the next access does not come here any more
    return value


def __dir__():
    return sorted({*globals(), *_HOME})
