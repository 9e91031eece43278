"""What is installed here, what this machine can run, and what to do about each gap."""

import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

from visdial_lab.config import Config, load_config, profile_names
from visdial_lab.errors import UserError
from visdial_lab.files import resolve
from visdial_lab.platforms import hosted

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Check = tuple[str, bool | None, str, str]  # name, good (None = only to be known), what was found, advice

_MEMORY, _DISK = 4, 2  # GB that the scenes profile needs: at its peak, and for a run with room to spare


def check_machine(own: Config | None = None) -> list[Check]:
    """Look at packages, hardware, course files and profiles: [(name, good?, what was found, advice)].

    own: one more profile to look at, a YAML file of the user's.
    Versions are compared with the ranges that the package declares, which are the tested ones.
    """
    configs = [load_config(name) for name in profile_names()] + ([own] if own else [])
    profiles = map(_profile, configs)
    checks = [*_packages(), *_hardware(), *profiles, _sandbox()]
    return [(name, good, found, "" if good else advice) for name, good, found, advice in checks]


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    place = f", {hosted()}" if hosted() else ""
    machine = f"{platform.python_version()} on {platform.system()} {platform.machine()}{place}"
    yield "python", None, machine, ""
    try:
        wanted = [Requirement(line) for line in metadata.requires("visdial-lab") or ()]
    except metadata.PackageNotFoundError:
        yield "visdial-lab", False, "not installed", "in the course folder: pip install -e ."
        return
    for need in wanted:
        for_all = need.marker is None or need.marker.evaluate({"extra": ""})
        if for_all or need.marker.evaluate({"extra": "instructor"}):  # not another platform's or extra's
            yield _package(need, for_all)


def _package(need: "Requirement", for_all: bool) -> Check:
    """What is there of a package that all need, or only who releases and grades."""
    try:
        found = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        fetch = f'pip install "{need.name}{need.specifier}"'
        if for_all:
            return need.name, False, "not installed", fetch
        return need.name, None, "not installed", f"only for `release` and `grade --gradebook`: {fetch}"
    good = need.specifier.contains(found, prereleases=True)
    advice = f'if something fails: pip install "{need.name}{need.specifier}"'
    return need.name, good or None, f"{found} (tested with {need.specifier or 'any'})", advice


def _hardware() -> Iterator[Check]:
    psutil, free, gpus = _library("psutil"), shutil.disk_usage(".").free / 1e9, _gpus()
    if psutil:
        memory, advice = psutil.virtual_memory().total / 1e9, "close other programs, or use another machine"
        yield "memory", memory >= _MEMORY, f"{memory:.0f} GB", advice
    advice = f"free some space: a run needs {_DISK} GB"
    yield "disk", free >= _DISK, f"{free:.0f} GB free in this folder", advice
    found = ", ".join(gpus) or f"none; {os.cpu_count()} CPU cores"
    yield "gpu", bool(gpus) or None, found, "not needed for the scenes profile"


def _gpus() -> list[str]:
    torch = _library("torch")
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch else []


def _library(name: str) -> Any:
    """A library, or None where it is missing, which the packages' rows tell."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _profile(config: Config) -> Check:
    """Whether this machine can run a profile: its data, its model, its precision, its kernel."""
    kernel, gaps = config.notebooks.kernel_name, []
    if (config.training.fp16 or config.training.bf16) and not _gpus():
        gaps.append("it trains in half precision, which needs a CUDA GPU: use a GPU machine or Colab")
    try:
        gaps += _missing(config)
    except UserError as error:  # embedded data or model, and no course around
        gaps.append(str(error))
    jupyter = _library("jupyter_client.kernelspec")
    if jupyter is None or kernel not in jupyter.find_kernel_specs():
        gaps.append(f"no Jupyter kernel {kernel}: pip install ipykernel")
    bad = False if config.name == "scenes" else None  # the profile that runs everywhere
    found = "does not run here yet" if gaps else "runs here"
    return f"profile {config.name}", not gaps or bad, found, "; ".join(gaps)


def _missing(config: Config) -> Iterator[str]:
    """The data and the model of a profile, where they are not there: what to do."""
    root, model = config.data.root, config.model.name
    if not list(resolve(root).glob("visdial_1.0_*.json")):
        fetch = f"visdial-lab download --split train --split val --root {root} (text only: --images none)"
        own = f"fetch the course again, {root} belongs to it"
        yield f"data is missing: {own if str(root).startswith('data/scenes') else fetch}"
    if model.startswith(("data/", "/", "./", "../")) and not (resolve(model) / "config.json").is_file():
        own = f"fetch the course again, {model} belongs to it"
        yield f"model is missing: {own if model.startswith('data/') else f'no config.json in {model}'}"


def _sandbox() -> Check:
    """The wall that `visdial-lab grade` would run strangers' notebooks behind: tried, as grading tries it."""
    try:
        from visdial_lab.grading.sandbox import choose

        return "grading", True, f"sandbox {choose()} holds here", ""
    except UserError as error:
        advice = "only graders need one: apt-get install bubblewrap, or podman"
        return "grading", None, str(error).partition(" Install ")[0], advice
    except ImportError:  # Windows has no namespaces, and no module for limits
        return "grading", None, "no sandbox on this system", "only graders need one: use Linux"
