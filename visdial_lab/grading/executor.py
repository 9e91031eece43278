"""The program inside the sandbox: runs a notebook's cells and answers calls of its functions.

Commands come in as JSON lines on standard input, replies leave on what was standard output. Both are moved
to other file descriptors before any cell runs, so nothing that a cell prints gets between the replies. A cell
could still find and write to them: then it lies about its own results, which is all it could do anyway. What
is expected of it is never in this process.

    {"id": "a3…", "run": "x = 1", "name": "cell"}            → {"id": "a3…"} or {"id": "a3…", "error": {…}}
    {"id": "0f…", "function": "f", "args": …, "kwargs": …}   → {"id": "0f…", "value": …} or {…, "error": {…}}
"""

import contextlib
import ctypes
import json
import os
import resource
import sys
import threading
from typing import Any

from visdial_lab.exercises import decode_call, encode

_NO_NEW_PRIVILEGES = 38  # prctl: setuid programs give nothing from here on


def main() -> None:
    """Serve commands until standard input ends. sys.argv[1]: the limits as JSON (see `sandbox.Limits`)."""
    limits = json.loads(sys.argv[1])
    with contextlib.suppress(OSError):  # already so
        os.setsid()  # a signal to its group reaches nothing outside
    commands, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what cells print goes to standard error, which the grader counts and drops
    sys.stdout.reconfigure(line_buffering=True, errors="replace")
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    threading.stack_size(16 << 20)
    shell = _shell()
    _limit(limits)
    # a cell may put something else in their place
    loads, dumps, write, pid, leave = json.loads, json.dumps, os.write, os.getpid, os._exit
    own = pid()
    for line in commands:
        command = loads(line)
        answer = _answer(command, shell)
        if pid() != own:  # a copy that a cell has forked: it would take the commands meant for us
            leave(0)
        reply = dumps({"id": command["id"]} | answer).encode() + b"\n"
        while reply:
            reply = reply[write(replies, reply) :]


def _limit(limits: dict[str, Any]) -> None:
    """Limits that the kernel keeps for each process; those on all of them together are the sandbox's."""
    for name, value in (
        ("RLIMIT_AS", limits["memory"]),
        ("RLIMIT_FSIZE", limits["disk"]),
        ("RLIMIT_CPU", int(limits["total"]) + 1),
        ("RLIMIT_NPROC", limits["processes"]),
        ("RLIMIT_NOFILE", 256),
        ("RLIMIT_CORE", 0),
    ):
        if value is None:
            continue
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _shell() -> Any:
    """IPython without history and tracebacks: magics, display and top-level await work as in Jupyter."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(history_length=0, colors="nocolor")
    shell.history_manager.enabled = False
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None  # told in the reply
    return shell


def _answer(command: dict[str, Any], shell: Any) -> dict[str, Any]:
    try:
        if "run" in command:
            result = shell.run_cell(command["run"], store_history=False)
            error = result.error_before_exec or result.error_in_exec
            return {} if error is None else {"error": _described(error)}
        value = decode_call(command, shell.user_ns)()
    except BaseException as error:  # SystemExit and KeyboardInterrupt too
        return {"error": _described(error)}
    finally:
        _flush()
    try:
        return {"value": encode(value)}
    except TypeError as error:
        return {"error": {"type": "TypeError", "message": f"returned {error}", "returned": True}}
    except BaseException as error:
        return {"error": _described(error)}


def _described(error: BaseException) -> dict[str, Any]:
    """Class, message and, for a cell, the line; an error whose message fails has none."""
    try:
        # of a syntax error without "(<ipython-input-1-df49>, line 2)": the line is told anyway
        syntax = isinstance(error, SyntaxError) and isinstance(error.msg, str)
        message = (error.msg if syntax else str(error))[:1000]
    except BaseException:
        message = ""
    line, trace = None, error.__traceback__
    while trace is not None and line is None:  # where the cell was, not where the library it called was
        if trace.tb_frame.f_code.co_filename.startswith("<ipython-input"):
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is None and isinstance(error, SyntaxError) and str(error.filename).startswith("<ipython-input"):
        line = error.lineno
    return {"type": type(error).__name__[:100], "message": message, "line": line}


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # a cell has put something else in its place
            continue


if __name__ == "__main__":
    main()
