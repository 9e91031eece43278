"""How every notebook begins and ends: checked parameters, a run folder, a manifest; nothing is done twice."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import __version__
from visdial_lab.config import Config, config_to_yaml, load_config
from visdial_lab.errors import UserError, shown
from visdial_lab.files import (
    atomic_path,
    course_root,
    model_fingerprint,
    portable,
    read_json,
    resolve,
    sha256,
    write_json,
    write_text,
)
from visdial_lab.platforms import hosted, prepare


def setup(profile: str = "scenes", output: str | Path | None = None, **overrides: Any) -> tuple[Config, Path]:
    """Begin a notebook: check the parameters, load the profile, make the run folder, say what is used.

    profile: a profile's name or the path of a YAML file. output: the run folder (empty or None = the
    profile's own); a relative one counts from the course folder, wherever the notebook lies.
    overrides: dotted config keys, as setup(PROFILE, **{"training.max_steps": 20}).
    On Colab and Kaggle what is missing is fetched first. Returns (config, run folder); the config as used is
    in the run folder's config.yaml.
    Raises UserError for a parameter of the wrong type (papermill checks none), a mistake in the profile and a
    library that is missing on one's own machine.
    """
    if not isinstance(profile, (str, Path)):
        raise UserError(f"PROFILE should be the name or path of a profile, is {shown(profile)}")
    if output is not None and not isinstance(output, (str, Path)):
        raise UserError(f"OUTPUT should be a folder (or empty for the profile's own), is {shown(output)}")
    prepare()
    config = load_config(profile, overrides)
    run = course_root() / os.path.expanduser(output or config.notebooks.output_dir)
    write_text(run / "config.yaml", config_to_yaml(config))
    _show_figures()
    print(_report(config, run))
    return config, run


def _show_figures() -> None:
    """In Jupyter: a figure is shown as a picture, even when pyplot was never asked for."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")


def _report(config: Config, run: Path) -> str:
    import torch

    packages = " · ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    bits = " in 4 bits" if config.model.load_in_4bit else ""
    place = f" · {hosted()}" if hosted() else ""
    return (
        f"VisDial Lab {__version__}{place} · Python {platform.python_version()} · {packages}\n"
        f"profile {config.name}: {config.model.name}{bits} on {device}, dialogs from {config.data.root}\n"
        f"results go to {portable(run)}"
    )


def story(dialogs: Sequence, image_id: int) -> Any:
    """The dialog that the notebooks follow: the one about `image_id`, or the first, as in data without it.

    Raises UserError for an `image_id` that is not a whole number.
    """
    if type(image_id) is not int:
        raise UserError(f"IMAGE_ID should be a whole number, is {shown(image_id)}")
    found = next((dialog for dialog in dialogs if dialog.image_id == image_id), None)
    if found is None:
        print(f"no dialog about image {image_id} here: following {dialogs[0].image_id}")
    return found or dialogs[0]


def need(run: Path, name: str, notebook: str) -> Path:
    """A file or folder that an earlier notebook leaves in the run folder; UserError says which one to run."""
    if not (run / name).exists():
        how = _elsewhere(run, notebook) if hosted() else ""
        raise UserError(f"{portable(run / name)} is not there yet: run notebook {notebook} first{how}")
    return run / name


def _elsewhere(run: Path, notebook: str) -> str:
    """How to run another notebook where each one that is opened gets a machine of its own."""
    folder, made = course_root() / "notebooks", shlex.quote(portable(run))
    names = [f"notebooks/{path.name} runs/{notebook}.ipynb" for path in folder.glob(f"{notebook}_*.ipynb")]
    words = f"!papermill {''.join(names)} -p PROFILE {made}/config.yaml -p OUTPUT {made}"
    return f". {hosted()} gives each notebook a machine of its own, so run it on this one:\n{words}"


def manifest(
    run: Path, notebook: str, read: Iterable[str | Path] = (), wrote: Iterable[str | Path] = ()
) -> dict[str, Any]:
    """End a notebook: write manifest_NN.json, which says that it ran to its end, and from what to what.

    notebook: its name, as "03_qlora_finetuning". A relative path counts from the run folder, then from the
    course folder.
    → {"notebook", "config_sha256", "read": {path: sha256}, "wrote": {path: sha256}}, paths inside the run
    folder relative to it, so that the folder can be moved. Raises UserError when one of the files is missing.
    """
    if not re.fullmatch(r"\d\d_\w+", notebook):
        raise UserError(f"notebook should be a name such as 03_qlora_finetuning, is {shown(notebook)}")
    entry = _manifest(run, notebook, read, wrote)
    write_json(run / f"manifest_{notebook[:2]}.json", entry)
    return entry


def _manifest(run: Path, notebook: str, *lists: Iterable[str | Path]) -> dict[str, Any]:
    entry: dict[str, Any] = {"notebook": notebook, "config_sha256": sha256(run / "config.yaml")}
    for kind, names in zip(("read", "wrote"), lists, strict=True):
        entry[kind] = {}
        for name in names:
            path = run / name if (run / name).exists() else resolve(name)
            if not path.exists():
                raise UserError(f"manifest: {name} is neither in {portable(run)} nor in the course folder")
            inside = path.is_relative_to(run)
            entry[kind][path.relative_to(run).as_posix() if inside else portable(path)] = sha256(path)
    return entry


def manifest_holds(run: Path, notebook: str) -> bool:
    """Whether the notebook has written its manifest, and all that it read and wrote is still as it was."""
    try:
        noted = read_json(run / f"manifest_{notebook[:2]}.json")
        return noted == _manifest(run, notebook, noted["read"], noted["wrote"])
    except UserError:  # no manifest, or a file of it is gone
        return False


def trained_already(run: Path, config: Config) -> bool:
    """Whether run/adapter comes from exactly these records, this base model and these training settings."""
    lab, records, history = run / "adapter" / "lab.json", run / "records.jsonl", run / "history.json"
    if not (lab.is_file() and records.is_file() and history.is_file()):
        return False
    notes, now, base = read_json(lab, "adapter's notes"), config.model_dump(), config.model.name
    return (
        all(notes["config"][section] == now[section] for section in ("model", "peft", "training"))
        and notes["records"]["sha256"] == sha256(records)
        and (notes["base_model_sha256"] or base) == model_fingerprint(base)
    )


def save_scores(run: Path, name: str, dialogs: Sequence, scores: list, made_from: str) -> Path:
    """Write run/scores_{name}.npz: for each image id, scores [rounds with options, options].

    made_from: a `files.fingerprint` of everything that the scores depend on; it is kept beside them.
    """
    tables = {
        str(dialog.image_id): [row for row in by_round if row is not None]
        for dialog, by_round in zip(dialogs, scores, strict=True)
    }
    with atomic_path(run / f"scores_{name}.npz") as temporary:
        np.savez_compressed(temporary, made_from=made_from, **tables)
    return run / f"scores_{name}.npz"


def load_scores(run: Path, name: str, dialogs: Sequence, made_from: str) -> list[list] | None:
    """What `save_scores` wrote, as `score_dialogs` returns it; None if it is not there or made otherwise."""
    path = run / f"scores_{name}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path) as saved:
            if str(saved["made_from"]) != made_from:
                return None
            tables = [iter(saved[str(dialog.image_id)]) for dialog in dialogs]
    except KeyError:  # other dialogs
        return None
    except Exception as error:  # numpy, zipfile and zlib have a dozen types for a damaged file
        raise UserError(f"cannot read scores {path}: {error}; delete it and run notebook 04 again") from None
    return [
        [next(rows) if turn.options is not None else None for turn in dialog.rounds]
        for dialog, rows in zip(dialogs, tables, strict=True)
    ]
