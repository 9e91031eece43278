"""A place to run strangers' code: the executor behind the strongest wall that this machine offers.

The ladder: a container (podman or docker), bubblewrap, `unshare` with namespaces, and, only when asked for, a
plain process with limits. What each of them shows is in `walls`. A rung counts only once it has been tried
here and shown to hold.
"""

import contextlib
import functools
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visdial_lab.errors import UserError
from visdial_lab.exercises import decode
from visdial_lab.files import course_root
from visdial_lab.grading.walls import (
    PACKAGE,
    PLAIN,
    Limits,
    command,
    engine,
    environment,
    outer_environment,
    view,
)

RUNGS = ("container", "bubblewrap", "unshare")  # strongest first
_LOOK_SECONDS = 0.25  # how often memory and processes are counted


class Stopped(Exception):
    """The sandbox was stopped or died; the message says why, for the student to read."""


class Sandbox:
    """An executor in a sandbox; a context manager. Everything inside is dead once it is left."""

    def __init__(self, rung: str, limits: Limits):
        self.limits = limits
        self._name = f"visdial-lab-{uuid.uuid4().hex[:12]}"
        self._folder = tempfile.mkdtemp(prefix=f"{self._name}-")
        words = command(rung, limits, self._name, self._folder)
        self._engine = words[: words.index("run")] if rung == "container" else None
        plain = rung == PLAIN
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=self._folder if plain else "/",
            env=environment(self._folder) if plain else outer_environment(rung),
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            os.set_blocking(stream.fileno(), False)
        for stream in (self._process.stdout, self._process.stderr):
            self._selector.register(stream, selectors.EVENT_READ)
        self._buffer, self._asked, self.last_words = bytearray(), "", b""

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process inside. The kernel does so for a namespace whose first process dies."""
        if self._engine:
            words = [*self._engine, "rm", "--force", "--time", "0", self._name]
            subprocess.run(words, capture_output=True, check=False)
        for process in _tree(self._process.pid):
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a command to the executor and wait for its reply, which is anything a stranger may have made.

        Raises Stopped when time, memory, processes or output run over, or when the process ends.
        """
        self._asked = secrets.token_hex(8)  # nobody can answer before being asked
        to_send = memoryview(json.dumps({"id": self._asked} | question).encode() + b"\n")
        began, looked, printed = time.monotonic(), time.monotonic(), 0
        self._selector.register(self._process.stdin, selectors.EVENT_WRITE)
        try:
            while True:
                now = time.monotonic()
                if now - began > seconds:
                    raise Stopped(f"took longer than {seconds:g} s")
                if now - looked > _LOOK_SECONDS:
                    looked = now
                    self._look()
                for key, _ in self._selector.select(min(_LOOK_SECONDS, began + seconds - now)):
                    if key.fileobj is self._process.stdin:
                        to_send = to_send[self._send(to_send) :]
                        if not to_send:
                            self._selector.unregister(self._process.stdin)
                        continue
                    piece = self._read(key.fileobj)
                    if key.fileobj is self._process.stderr:
                        printed += len(piece)
                        self.last_words = (self.last_words + piece)[-500:]
                        if printed > self.limits.output:
                            raise Stopped(f"printed more than {self.limits.output >> 20} MB")
                    elif (reply := self._reply(piece)) is not None:
                        return reply
        finally:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._process.stdin)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing inside runs meanwhile: not even to make others, who are being timed, slow."""
        self._signal("pause", signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal("unpause", signal.SIGCONT)

    def _signal(self, word: str, number: signal.Signals) -> None:
        """A word to the container's engine, or a signal to all processes; twice: one may start another."""
        if self._engine:
            words = [*self._engine, word, self._name]
            subprocess.run(words, capture_output=True, check=False)
            return
        for process in _tree(self._process.pid) + _tree(self._process.pid):
            with contextlib.suppress(OSError):
                os.kill(process.pid, number)

    def _send(self, data: memoryview) -> int:
        try:
            return os.write(self._process.stdin.fileno(), data[: 1 << 16])
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise Stopped(self._end()) from None

    def _read(self, stream: Any) -> bytes:
        piece = stream.read(1 << 16)
        if piece == b"" and stream is self._process.stdout:
            raise Stopped(self._end())
        if piece == b"":
            self._selector.unregister(stream)
        return piece or b""

    def _reply(self, piece: bytes) -> dict[str, Any] | None:
        """The reply to the latest command, once its line is complete."""
        self._buffer += piece
        if len(self._buffer) > self.limits.reply:
            raise Stopped(f"answered with more than {self.limits.reply >> 20} MB")
        if b"\n" not in piece:
            return None
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            try:
                reply = json.loads(line)
            except (ValueError, RecursionError):
                raise Stopped("wrote to the grader's channel") from None
            if isinstance(reply, dict) and reply.get("id") == self._asked:
                return reply | {"bytes": len(line)}
        return None

    def _look(self) -> None:
        """Count memory and processes of all that runs inside (a container counts for itself)."""
        if self._engine:
            return
        memory = count = 0
        for process in _tree(self._process.pid):
            with contextlib.suppress(Exception):  # it may end while we look
                memory += process.memory_info().rss
                count += process.num_threads()
        if memory > self.limits.memory:
            raise Stopped(f"used more than {self.limits.memory / 2**30:.3g} GB of memory")
        if count > self.limits.processes + 16:  # the kernel refuses them before; this is for where it cannot
            raise Stopped(f"started more than {self.limits.processes} processes")

    def _end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        code = self._process.returncode or 0
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if number in set(signal.Signals):
            return f"ended the process ({signal.Signals(number).name})"
        return f"ended the process (exit code {code})"


def _tree(pid: int) -> list:
    """A process and all that came from it."""
    import psutil

    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


# ---- the rungs


def choose(rung: str | None = None, unsafe: bool = False, secret: tuple[Path, ...] = ()) -> str:
    """The strongest rung that holds on this machine, or the one asked for.

    secret: folders whose names must not be seen from inside. Raises UserError when none holds: nothing is
    run without a wall unless `unsafe` says so.
    """
    if rung is not None and rung not in RUNGS:
        raise UserError(f"no sandbox {rung!r}; there are {', '.join(RUNGS)}")
    reasons = []
    for name in RUNGS if rung is None else (rung,):
        if (problem := problem_of(name, secret)) is None:
            return name
        reasons.append(f"{name}: {problem}")
    if unsafe:
        return PLAIN
    raise UserError(
        f"no sandbox works here ({'; '.join(reasons)}). Install bubblewrap or podman. "
        "--unsafe runs submissions with your own rights: only for code that you trust"
    )


@functools.lru_cache
def problem_of(rung: str, secret: tuple[Path, ...] = ()) -> str | None:
    """Why a rung cannot be trusted here, or None: the executor is started in it and looks around."""
    if rung == "container" and engine() is None:
        return "neither podman nor docker runs containers here"
    for program in {"bubblewrap": ("bwrap", "setpriv"), "unshare": ("unshare", "setpriv")}.get(rung, ()):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    hidden = {str(path) for path in (*secret, Path.home(), course_root(), course_root() / "solutions")}
    hidden -= {"/", "/tmp"}  # there inside, but other ones
    allowed = {str(up) for path, is_shown in view() if is_shown for up in (path, *path.parents)}
    with socket.create_server(("127.0.0.1", 0)) as server, Sandbox(rung, Limits()) as box:
        code = _LOOK_AROUND.format(
            hidden=hidden,
            allowed=allowed,
            known=set(environment("/tmp")),
            port=server.getsockname()[1],
            package=str(PACKAGE),
            threads=2 * Limits.processes,
        )
        try:
            error = box.ask({"run": code, "name": "look"}, 60).get("error")
            found = error or box.ask({"function": "look_around", "args": _EMPTY[0], "kwargs": _EMPTY[1]}, 20)
        except Stopped as stopped:
            words = box.last_words.decode(errors="replace").strip().splitlines()
            return f"{stopped} {words[-1][:200] if words else ''}".strip()
    if "value" not in found:
        return f"it could not look around: {found}"
    leaks = decode(found["value"])
    return f"it leaks: {', '.join(map(str, leaks))}" if leaks else None


_EMPTY = ({"kind": "list", "data": []}, {"kind": "dict", "data": []})
_LOOK_AROUND = """
import os, socket, sys, threading, time
def look_around():
    leaks = []
    for path in {hidden!r}:
        try:
            names = [os.path.join(path, name) for name in os.listdir(path)]
            leaks += ["sees " + name for name in names if name not in {allowed!r}][:3]
        except OSError: pass
    for path in ({package!r}, "/", "/usr", "/etc", sys.prefix):
        try:
            open(os.path.join(path, "written-by-a-submission"), "w").close()
            leaks.append("writes to " + path)
        except OSError: pass
    try:
        socket.create_connection(("127.0.0.1", {port}), 1).close()
        leaks.append("network")
    except OSError: pass
    if len([name for name in os.listdir("/proc") if name.isdigit()]) > 4: leaks.append("sees processes")
    with open("/proc/self/environ") as file: entries = file.read().split("\\0")
    names = {{entry.split("=")[0] for entry in entries}}
    leaks += ["environment: " + name for name in names - {known!r} if name][:3]
    with open("/tmp/mine", "w") as file: file.write("x")
    try:
        for _ in range({threads}): threading.Thread(target=time.sleep, args=(0.3,)).start()
        leaks.append("processes without end")
    except RuntimeError: pass
    return leaks
"""
