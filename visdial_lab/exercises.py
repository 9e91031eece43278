"""Exercises: how a test is written down, how values travel between processes, and `check` for students.

A test draws calls of functions that a notebook defines. Each call is made twice, in the namespace of the
student's notebook and in that of the reference solution; the two results are compared here, outside of both.
Everything travels as typed JSON (kind, dtype, shape, data): nothing that runs code when it is read.
"""

import base64
import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab.errors import UserError, shown
from visdial_lab.files import course_root, read_json

_DEPTH = 40  # of nested containers; also keeps a value that contains itself from going on for ever
_TORCH = {
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
    *("complex64", "complex128"),
}


@dataclass(frozen=True)
class Call:
    """A call to make in a notebook's namespace: function name, positional and named arguments."""

    function: str
    args: tuple = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Build(Call):
    """An argument that the notebook itself builds: its function is called there and the result passed on."""


@dataclass(frozen=True)
class Test:
    """One test of an exercise: `draw(rng)` yields calls, all of which must be answered as the reference does.

    points: given when every call is right. goal: what it shows the student can do, told in the feedback.
    visible: part of `check` in the student's notebook, and drawn there with a fixed seed.
    rtol, atol: how far a float may be off. faster_than, by: the calls must also take at most 1/by of the
    time that the reference's function of this name takes with the same arguments.
    """

    __test__ = False  # for pytest: no class of tests
    exercise: str
    name: str
    goal: str
    points: float
    draw: Callable[[np.random.Generator], Iterable[Call]]
    visible: bool = False
    rtol: float = 1e-5
    atol: float = 1e-7
    faster_than: str | None = None
    by: float = 1.0


@dataclass(frozen=True)
class Mutant:
    """A planted wrong answer: with `code` as solution of `exercise` the problem set scores `points`."""

    name: str
    exercise: str
    code: str
    points: float


def call(function: str, *args: Any, **kwargs: Any) -> Call:
    """A call of a function that the notebook defines."""
    return Call(function, args, kwargs)


def build(function: str, *args: Any, **kwargs: Any) -> Build:
    """An argument made by a function of the notebook, in the process that makes the call."""
    return Build(function, args, kwargs)


def draw(test: Test, seed: str) -> list[Call]:
    """The calls of a test for one student: the same ones for the same seed. Raises UserError for none."""
    words = f"{seed}\n{test.exercise}\n{test.name}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(words).digest()[:8], "little"))
    calls = list(test.draw(rng))
    if not calls or not all(type(entry) is Call for entry in calls):
        raise UserError(f"test {test.exercise} “{test.name}”: draw must yield one or more call(…)")
    return calls


# ---- typed JSON


def encode(value: Any, depth: int = 0) -> Any:
    """A value as JSON: null, true, strings, numbers as they are, everything else as {"kind": …}.

    numpy's scalars become Python's, subclasses their base. Raises TypeError for what cannot travel.
    """
    kind = type(value)
    if depth > _DEPTH:
        raise TypeError(f"nested more than {_DEPTH} deep")
    if value is None or kind in (bool, str):
        return value
    if issubclass(kind, np.generic):
        return encode(value.item(), depth + 1)
    if issubclass(kind, int):
        number = int(value)
        return number if abs(number) < 2**63 else {"kind": "int", "data": hex(number)}
    if issubclass(kind, float):
        number = float(value)
        return number if math.isfinite(number) else {"kind": "float", "data": str(number)}
    if issubclass(kind, str):
        return str(value)
    if issubclass(kind, (bytes, bytearray)):
        return {"kind": "bytes", "data": base64.b64encode(value).decode()}
    for name, base in (("list", list), ("tuple", tuple), ("set", (set, frozenset))):
        if issubclass(kind, base):
            items = [encode(item, depth + 1) for item in value]
            # a set has no order of its own; JSON gives it one, so that files stay the same
            return {"kind": name, "data": sorted(items, key=json.dumps) if name == "set" else items}
    if issubclass(kind, dict):
        pairs = [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]
        return {"kind": "dict", "data": pairs}
    if issubclass(kind, np.ndarray):
        if value.dtype.kind not in "biufcU":
            raise TypeError(f"a numpy array of dtype {value.dtype}")
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"kind": "ndarray", "dtype": value.dtype.str, "shape": list(value.shape), "data": data}
    if isinstance(value, Build):
        args, kwargs = encode(list(value.args), depth + 1), encode(dict(value.kwargs), depth + 1)
        return {"kind": "build", "function": value.function, "args": args, "kwargs": kwargs}
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _TORCH:
            raise TypeError(f"a tensor of dtype {dtype}")
        plain = value.detach().cpu()
        inner = encode((plain.float() if dtype == "bfloat16" else plain).numpy(), depth + 1)
        return {"kind": "tensor", "dtype": dtype, "data": inner}
    raise TypeError(f"a value of type {kind.__name__}")


def encode_call(entry: Call) -> dict[str, Any]:
    """A call as JSON."""
    return {
        "function": entry.function,
        "args": encode(list(entry.args)),
        "kwargs": encode(dict(entry.kwargs)),
    }


def decode(data: Any, namespace: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """The value back from `encode`. `namespace`: where the functions of build(…) are found.

    Raises ValueError for anything that `encode` would not have written: the text may come from a stranger.
    """
    if depth > 2 * _DEPTH:
        raise ValueError(f"nested more than {2 * _DEPTH} deep")
    if data is None or type(data) in (bool, int, float, str):
        return data
    if namespace is not None and type(data) is dict and data.get("kind") == "build":
        try:
            return decode_call(data, namespace)()
        except Exception as error:
            raise RuntimeError(f"{data['function']} failed: {type(error).__name__}: {error}") from error
    try:
        kind, inner = data["kind"], data.get("data")
        if kind in ("list", "tuple", "set"):
            items = [decode(item, namespace, depth + 1) for item in inner]
            return items if kind == "list" else tuple(items) if kind == "tuple" else set(items)
        if kind == "dict":
            return {decode(k, namespace, depth + 1): decode(v, namespace, depth + 1) for k, v in inner}
        if kind == "int":
            return int(inner, 16)
        if kind == "float":
            return float(inner)
        if kind == "bytes":
            return base64.b64decode(inner, validate=True)
        if kind == "ndarray":
            dtype = np.dtype(str(data["dtype"]))
            if dtype.kind not in "biufcU":
                raise ValueError(f"dtype {dtype}")
            return np.frombuffer(base64.b64decode(inner, validate=True), dtype).reshape(data["shape"]).copy()
        if kind == "tensor" and data["dtype"] in _TORCH:
            import torch

            return torch.from_numpy(decode(inner, depth=depth + 1)).to(getattr(torch, data["dtype"]))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a value that travels: {type(error).__name__}") from None
    raise ValueError(f"not a value that travels: {shown(data)}")


def decode_call(data: Mapping[str, Any], namespace: Mapping[str, Any]) -> Callable[[], Any]:
    """The call ready to be made in a namespace, its arguments built. NameError for an unknown function."""
    if data["function"] not in namespace:
        raise NameError(f"{data['function']} is not defined")
    function = namespace[data["function"]]
    args, kwargs = decode(data["args"], namespace), decode(data["kwargs"], namespace)
    return lambda: function(*args, **kwargs)


# ---- comparing


def compare(expected: Any, got: Any, rtol: float = 1e-5, atol: float = 1e-7, place: str = "") -> str | None:
    """The first difference in words, or None. Types must agree: int is not float, tuple is not list.

    Arrays and tensors: kind of dtype (float32 is as good as float64), shape, values; nan equals nan.
    """
    where = f"at {place}: " if place else ""
    if type(expected) is not type(got):
        return f"{where}expected {_described(expected)}, got {_described(got)}"
    if isinstance(expected, (list, tuple)):
        if len(expected) != len(got):
            kind = type(expected).__name__
            return f"{where}expected a {kind} of {len(expected)}, got one of {len(got)}"
        pairs = enumerate(zip(expected, got, strict=True))
        found = (compare(a, b, rtol, atol, f"{place}[{number}]") for number, (a, b) in pairs)
        return next(filter(None, found), None)
    if isinstance(expected, dict):
        for key in expected:
            if key not in got:
                return f"{where}the key {shown(key)} is missing"
        for key in got:
            if key not in expected:
                return f"{where}the key {shown(key)} should not be there"
        found = (compare(expected[key], got[key], rtol, atol, f"{place}[{key!r}]") for key in expected)
        return next(filter(None, found), None)
    if isinstance(expected, float):
        if math.isclose(expected, got, rel_tol=rtol, abs_tol=atol) or (expected != expected and got != got):
            return None
    elif hasattr(expected, "shape"):
        return _compare_arrays(expected, got, rtol, atol, where, place)
    elif expected == got:
        return None
    return f"{where}expected {shown(expected)}, got {shown(got)}"


def _compare_arrays(expected: Any, got: Any, rtol: float, atol: float, where: str, place: str) -> str | None:
    if type(expected) is not np.ndarray:  # tensors
        names = [str(value.dtype).removeprefix("torch.") for value in (expected, got)]
        expected, got = (
            (v.float() if n == "bfloat16" else v).numpy() for v, n in zip((expected, got), names, strict=True)
        )
    kinds = ["i" if value.dtype.kind == "u" else value.dtype.kind for value in (expected, got)]
    if kinds[0] != kinds[1]:
        return f"{where}expected dtype {expected.dtype}, got {got.dtype}"
    if expected.shape != got.shape:
        return f"{where}expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
    if kinds[0] in "fc":
        differs = ~np.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True)
    else:
        differs = expected != got
    if not differs.any():
        return None
    first = tuple(int(n) for n in np.argwhere(differs)[0])
    index = f"[{', '.join(map(str, first))}]" if first else ""
    count = f" ({differs.sum():,} of {differs.size:,} entries differ)" if differs.size > 1 else ""
    where = f"at {place}{index}: " if place or index else ""
    return f"{where}expected {expected[first].item()!r}, got {got[first].item()!r}{count}"


def _described(value: Any) -> str:
    """A value with its type, for a message."""
    if value is None:
        return "None"
    name = type(value).__name__
    if hasattr(value, "shape"):
        return f"a {'tensor' if name == 'Tensor' else 'numpy array'} of shape {tuple(value.shape)}"
    return f"{shown(value)} ({name})"


# ---- check, in the student's notebook


class CheckFailed(AssertionError):
    """What `check` raises. Jupyter shows its message alone, without the traceback."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


def check(exercise: str) -> None:
    """Run the visible tests of an exercise, say what differs, and how many more tests run at grading.

    Raises CheckFailed when one fails; UserError for an unknown exercise or when checks.json is not found.
    """
    if "VISDIAL_LAB_GRADING" in os.environ:
        return  # the grader runs its own tests, from outside
    exercises = _find_checks(exercise)["exercises"]
    if exercise not in exercises:
        raise UserError(f"no exercise {shown(exercise)} here; there are {', '.join(exercises)}")
    entry, namespace = exercises[exercise], sys._getframe(1).f_globals
    failures = {test["name"]: _run_visible(test, namespace) for test in entry["tests"]}
    lines = []
    for test in entry["tests"]:
        problem = failures[test["name"]]
        lines.append(f"  {'✗' if problem else '✓'} {test['name']}")
        lines += [f"      {line}" for line in (problem or "").splitlines()]
        if problem:
            lines.append(f"      what it is for: {test['goal']}")
    passed = sum(problem is None for problem in failures.values())
    head = f"{exercise}: {passed} of {len(failures)} tests pass" if failures else f"{exercise}: no tests here"
    if entry["hidden"]:
        lines.append(f"  {entry['hidden']} more test{'s' * (entry['hidden'] > 1)} will run at grading")
    message = "\n".join([head, *lines])
    if passed < len(failures):
        raise CheckFailed(message)
    print(message)


def _run_visible(test: Mapping[str, Any], namespace: Mapping[str, Any]) -> str | None:
    """What is wrong, or None."""
    for entry in test["calls"]:
        called = f"{entry['function']}({_arguments(entry)})"
        try:
            got = decode_call(entry, namespace)()
        except Exception as error:
            if type(error).__name__ == entry.get("raises"):
                continue
            if isinstance(error, NotImplementedError):
                return "not implemented yet"
            wanted = f"; expected {entry['raises']}" if "raises" in entry else ""
            return f"{called}\nraised {type(error).__name__}: {str(error)[:300]}{wanted}"
        if "raises" in entry:
            return f"{called}\nexpected {entry['raises']} to be raised, got {_described(got)}"
        try:
            got = decode(json.loads(json.dumps(encode(got))))
        except TypeError as error:
            return f"{called}\nreturned something that is not plain data: {error}"
        expected = decode(entry["expected"])
        if problem := compare(expected, got, test["rtol"], test["atol"]):
            return f"{called}\n{problem}"
    return None


def _arguments(entry: Mapping[str, Any]) -> str:
    """The arguments of a call as a reader wants to see them: short."""

    def short(data: Any) -> str:
        if isinstance(data, dict) and data["kind"] == "build":
            return f"{data['function']}(…)"
        value = decode(data) if not _holds_build(data) else "…"
        return f"array{tuple(value.shape)}" if getattr(value, "size", None) and value.ndim else shown(value)

    named = [f"{name}={short(value)}" for name, value in entry["kwargs"]["data"]]
    return ", ".join([*map(short, entry["args"]["data"]), *named])


def _holds_build(data: Any) -> bool:
    return '"build"' in json.dumps(data)


def _find_checks(exercise: str) -> dict[str, Any]:
    """checks.json of the exercise's problem set: beside the notebook, or in the course's assignments/."""
    name = exercise.split(".")[0]
    here = Path.cwd()
    places = [here, here / name, here / "assignments" / name]
    with contextlib.suppress(UserError):
        places.append(course_root() / "assignments" / name)
    for folder in places:
        path = folder / "checks.json"
        if path.is_file() and (found := read_json(path)).get("assignment") == name:
            return found
    raise UserError(
        f"checks.json of {name} not found: keep it beside the notebook, or work in the course folder"
    )
