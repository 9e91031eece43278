"""What is installed here, what this machine can run, and what to do about each gap."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

from visdial_lab.config import Config, load_config, profile_names
from visdial_lab.files import resolve

Check = tuple[str, bool | None, str, str]  # name, good (None = only to be known), what was found, advice

_MEMORY, _DISK = 4, 2  # GB that the scenes profile needs: at its peak, and for a run with room to spare


def check_machine() -> list[Check]:
    """Look at packages, hardware, course files and profiles: [(name, good?, what was found, advice)].

    Versions are compared with the ranges that the package declares, which are the tested ones.
    """
    checks = [*_packages(), *_hardware()]
    checks += [_profile(load_config(name)) for name in profile_names()]
    return checks


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    yield "python", None, f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    try:
        wanted = [Requirement(line) for line in metadata.requires("visdial-lab") or ()]
    except metadata.PackageNotFoundError:
        yield "visdial-lab", False, "not installed", "in the course folder: pip install -e ."
        return
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue  # another platform's, or part of an extra
        try:
            found = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            yield need.name, False, "not installed", f'pip install "{need}"'
            continue
        good = need.specifier.contains(found, prereleases=True)
        tested = f"tested with {need.specifier}" if str(need.specifier) else ""
        advice = "" if good else f'if something fails: pip install "{need.name}{need.specifier}"'
        yield need.name, True if good else None, f"{found} {tested and f'({tested})'}".strip(), advice


def _hardware() -> Iterator[Check]:
    memory = _memory()
    few = "" if memory is None or memory >= _MEMORY else "close other programs, or use another machine"
    yield "memory", not few, "unknown" if memory is None else f"{memory:.0f} GB", few
    free = shutil.disk_usage(".").free / 1e9
    full = "" if free >= _DISK else f"free some space: a run needs {_DISK} GB"
    yield "disk", not full, f"{free:.0f} GB free in this folder", full
    gpus = _gpus()
    advice = "" if gpus else "not needed for the scenes profile"
    yield "gpu", True if gpus else None, ", ".join(gpus) or f"none; {os.cpu_count()} CPU cores", advice


def _memory() -> float | None:
    """Memory of this machine in GB, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _gpus() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]


def _profile(config: Config) -> Check:
    """Whether this machine can run a profile: its data, its model, its precision, its kernel."""
    gaps = []
    if not list(resolve(config.data.root).glob("visdial_1.0_*.json")):
        gaps.append(f"data is missing: put VisDial's dialogs and images into {config.data.root}")
    if config.model.name.startswith("data/") and not (resolve(config.model.name) / "config.json").is_file():
        gaps.append(f"model is missing: fetch the course again, {config.model.name} belongs to it")
    if (config.training.fp16 or config.training.bf16) and not _gpus():
        gaps.append("it trains in half precision, which needs a CUDA GPU: use a GPU machine or Colab")
    if config.notebooks.kernel_name not in _kernels():
        gaps.append(f"no Jupyter kernel {config.notebooks.kernel_name}: pip install ipykernel")
    needed = config.name == "scenes"  # the profile that runs everywhere
    return (
        f"profile {config.name}",
        True if not gaps else (False if needed else None),
        "runs here" if not gaps else "does not run here yet",
        "; ".join(gaps),
    )


def _kernels() -> list[str]:
    try:
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError:
        return []
    return list(KernelSpecManager().find_kernel_specs())
