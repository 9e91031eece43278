"""The command lines of the sandbox's rungs: the same little world behind a container, bubblewrap or unshare.

Shown read-only: the system's programs, this Python, this library, the embedded data; and an empty /tmp of
limited size. No network, no home, no course folder, none of the instructor's environment.
"""

import contextlib
import dataclasses
import functools
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from visdial_lab.files import course_root

PLAIN = "plain process"  # no wall: limits only
PACKAGE = Path(__file__).absolute().parents[1]  # visdial_lab
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/etc/localtime")
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one submission may use. Seconds of wall time; bytes."""

    cell: float = 60  # one cell
    call: float = 10  # one call of a test
    total: float = 600  # everything, with repeated runs after a crash
    memory: int = 4 << 30  # all processes together, and the address space of each
    processes: int = 64  # and threads
    output: int = 50 << 20  # printed by one cell or call
    disk: int = 256 << 20
    reply: int = 16 << 20  # one answer


def command(rung: str, limits: Limits, name: str, folder: str) -> list[str]:
    """The command line that starts the executor on a rung."""
    # A container counts its own processes; the kernel would count those of all containers of one user.
    within = dataclasses.asdict(limits) | ({"processes": None} if rung == "container" else {})
    executor = [sys.executable, "-m", "visdial_lab.grading.executor", json.dumps(within)]
    if rung == PLAIN:
        return executor
    inner = [
        "/usr/bin/env",
        "-i",
        *(f"{key}={value}" for key, value in environment("/tmp").items()),
        *executor,
    ]
    if rung == "container":
        return _container(limits, name, folder) + inner
    # As root the executor gets a user id that nobody has, so that the limit on processes counts its own only.
    user = random.randrange(2**20, 2**30)
    drop = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    if os.geteuid() == 0:
        drop += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    if os.geteuid() == 0 or rung == "unshare":  # bubblewrap has done it for other users
        drop += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    script = _bubblewrap if rung == "bubblewrap" else _unshare
    return script(limits, folder) + drop + inner


def environment(home: str) -> dict[str, str]:
    """The whole environment inside: nothing of the instructor's."""
    return {
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "USER": "student",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "IPYTHONDIR": f"{home}/.ipython",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{home}/.matplotlib",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # submissions share the processors
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # each arena reserves address space, which is limited
        "VISDIAL_LAB_ROOT": str(course_root()),
        "VISDIAL_LAB_GRADING": "1",
    }


def outer_environment(rung: str) -> dict[str, str]:
    """For the program that builds the wall: podman and docker need the user's own, the others nothing."""
    return dict(os.environ) if rung == "container" else {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def view() -> list[tuple[Path, bool]]:
    """(path, shown or covered up) in the order in which to mount: what lies deeper comes later and wins."""
    root = course_root()
    python = Path(os.path.realpath(sys.executable)).parents[1]
    shown = {Path(p) for p in (*_SYSTEM, *_ETC) if os.path.exists(p)}
    shown |= {Path(sys.prefix), Path(sys.base_prefix), python, PACKAGE, root / "data" / "scenes"}
    shown = {path for path in shown if path.exists() and path not in (Path("/"), root)}
    covered = {Path(os.path.realpath(p)) for p in (root, Path.home())} - shown
    needed = {path for path in shown if not any(up in shown for up in path.parents)}
    needed |= {path for path in shown if any(up in covered for up in path.parents)}
    hiding = {path for path in covered if any(up in needed for up in path.parents)}
    both = [(path, True) for path in needed] + [(path, False) for path in hiding]
    return sorted(both, key=lambda entry: (len(entry[0].parts), str(entry[0])))


def _bubblewrap(limits: Limits, folder: str) -> list[str]:
    small = ["--perms", "1777", "--size", str(limits.disk), "--tmpfs"]
    words = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--die-with-parent"]
    words += ["--new-session", "--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"]
    if os.geteuid() == 0:
        words += [word for cap in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{cap}")]
    words += [*small, "/tmp"]
    shown = view()
    for parent in sorted({parent for path, _ in shown for parent in path.parents} - {Path("/")}):
        words += ["--perms", "0755", "--dir", str(parent)]
    for path, is_shown in shown:
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif is_shown:
            words += ["--ro-bind", str(path), str(path)]
        else:
            words += ["--size", "4096", "--tmpfs", str(path)]
    words += ["--proc", "/proc", "--dev", "/dev", *small, "/dev/shm", "--remount-ro", "/dev"]
    return [*words, "--remount-ro", "/", "--chdir", "/tmp", "--"]


def _unshare(limits: Limits, folder: str) -> list[str]:
    """util-linux alone: the view is put together on a tmpfs, which then becomes the root."""
    lines = [
        "set -e",
        'cd "$1"; shift',
        "mount -t tmpfs -o mode=755,nosuid,nodev,size=1m tmpfs .",
        'cd "$PWD"',
    ]

    def bind(path: Path, read_only: bool = True) -> None:
        inside = shlex.quote(f".{path}")
        if path.is_dir():
            lines.append(f"mkdir -p {inside}")
        else:
            lines.append(f"mkdir -p {shlex.quote(f'.{path.parent}')}; : > {inside}")
        lines.append(f"mount --bind {shlex.quote(str(path))} {inside}")
        if read_only:
            lines.append(f"mount -o remount,bind,ro,nosuid,nodev {inside}")

    lines.append(f"mkdir tmp proc dev; mount -t tmpfs -o mode=1777,nosuid,nodev,size={limits.disk} tmpfs tmp")
    for path, is_shown in view():
        inside = shlex.quote(f".{path}")
        if path.is_symlink():
            lines.append(f"ln -s {shlex.quote(os.readlink(path))} {inside}")
        elif is_shown:
            bind(path)
        else:
            lines.append(f"mkdir -p {inside}; mount -t tmpfs -o mode=755,size=4k tmpfs {inside}")
    for device in _DEVICES:
        bind(Path("/dev") / device, read_only=False)
    lines += [
        f"mkdir dev/shm; mount -t tmpfs -o mode=1777,nosuid,nodev,size={limits.disk} tmpfs dev/shm",
        "mkdir dev/pts; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts; ln -s pts/ptmx dev/ptmx",
        "mount -t proc -o nosuid,nodev,noexec proc proc",
        "mount -o remount,bind,ro,nosuid,nodev .",
        "pivot_root . .; umount -l .; cd /tmp",
        'exec "$@"',
    ]
    # each dies with its parent: the grader, unshare, the first process inside
    words = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--net",
        "--ipc",
        "--uts",
    ]
    if os.geteuid() != 0:
        words += ["--user", "--map-root-user"]
    return [*words, "sh", "-c", "\n".join(lines), "sh", folder]


@functools.lru_cache
def engine() -> tuple[str, ...] | None:
    """The container program that works here, with the options that it needs before `run`."""
    for words in (("podman",), ("podman", "--runtime", "runc"), ("docker",)):
        if shutil.which(words[0]):
            with tempfile.TemporaryDirectory() as empty, contextlib.suppress(subprocess.SubprocessError):
                run = [*words, "run", "--rm", *_bare(words[0], Limits(), view())]
                done = subprocess.run([*run, *_image(words[0], empty), "/usr/bin/true"], capture_output=True,
                                      timeout=30, check=False)  # fmt: skip
                if done.returncode == 0:
                    return words
    return None


def _bare(program: str, limits: Limits, shown: list[tuple[Path, bool]]) -> list[str]:
    size = f"size={limits.disk},mode=1777"
    words = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory), "--cpus", "1"]
    words += ["--pids-limit", str(limits.processes), "--ulimit", "nofile=256:256", "--log-driver", "none"]
    if program == "podman":
        # Its own default may be more than is allowed. Root's containers have a user each to be counted for.
        most = limits.processes if os.geteuid() == 0 else 4096
        words += ["--ulimit", f"nproc={most}:{most}"]
        words += ["--timeout", str(int(2 * limits.total) + 300)]  # if the grader was killed
    words += ["--tmpfs", f"/tmp:{size}", "--tmpfs", f"/dev/shm:{size}", "--workdir", "/tmp"]
    for path, is_shown in shown:
        real = os.path.realpath(path)  # an empty image has no links such as /lib → usr/lib
        words += ["--volume", f"{real}:{path}:ro"] if is_shown else ["--tmpfs", f"{path}:size=4k"]
    return words


def _image(program: str, empty: str) -> list[str]:
    """An image with nothing in it: everything is shown from this machine, as on the other rungs."""
    if program == "podman":
        return ["--rootfs", empty]
    name = "visdial-lab-empty"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
        nothing = b"\0" * 1024  # the end of a tar file
        subprocess.run(["docker", "import", "-", name], input=nothing, capture_output=True, check=False)
    return [name]


def _container(limits: Limits, name: str, folder: str) -> list[str]:
    program = engine() or ()
    os.chmod(folder, 0o755)  # it becomes the root folder of someone else
    words = [*program, "run", "--rm", "--interactive", "--name", name]
    if os.geteuid() == 0:
        user = random.randrange(2**16, 2**20)
        words += ["--user", f"{user}:{user}"]
    elif program[0] == "docker":  # podman without root maps its own root to this user
        words += ["--user", f"{os.getuid()}:{os.getgid()}"]
    return [*words, *_bare(program[0], limits, view()), *_image(program[0], folder)]
