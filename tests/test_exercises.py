"""Typed JSON, comparison, drawing, and `check` as a student meets it."""

import contextlib
import json
import math
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdial_lab.errors import UserError
from visdial_lab.exercises import (
    CheckFailed,
    Test,
    build,
    call,
    check,
    compare,
    decode,
    decode_call,
    draw,
    encode,
    encode_call,
)


def travel(value):
    return decode(json.loads(json.dumps(encode(value))))


VALUES = [
    *(None, True, 0, -5, 2**80, 1.5, math.nan, -math.inf, "", "é\n", b"\x00\xff"),
    *([], [1, [2.0, (3, "x")]], (), {1, 2}, {"a": None, 2: [True], (1, 2): "t"}),
    *(np.arange(6.0).reshape(2, 3), np.array(7), np.zeros((0, 4), bool), np.array(["a", "bcd"])),
    *(np.array([1 + 2j]), np.arange(6)[::2], np.asfortranarray(np.eye(3))),
    *(
        torch.randn(2, 3),
        torch.tensor(4),
        torch.randn(3, dtype=torch.bfloat16),
        torch.zeros(0, dtype=torch.bool),
    ),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value):
    back = travel(value)
    assert type(back) is type(value)
    assert compare(value, back, 0, 0) is None
    if hasattr(value, "dtype"):
        assert back.dtype == value.dtype


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
def test_any_plain_value_travels(value):
    assert compare(value, travel(value), 0, 0) is None


def test_numpy_scalars_and_subclasses_are_the_plain_thing():
    assert type(travel(np.float32(1.5))) is float and type(travel(np.bool_(1))) is bool
    assert travel(Counter("aab")) == {"a": 2, "b": 1} and type(travel(OrderedDict(a=1))) is dict


def test_a_gradient_is_left_behind():
    back = travel(torch.ones(2, requires_grad=True))
    assert not back.requires_grad and back.tolist() == [1, 1]


@pytest.mark.parametrize("value", [object(), lambda: 0, np.array([object()]), iter([]), np.longdouble(1)])
def test_what_is_no_plain_data_does_not_travel(value):
    with pytest.raises(TypeError):
        encode(value)


def test_a_value_that_contains_itself_does_not_travel():
    value = []
    value.append(value)
    with pytest.raises(TypeError, match="nested"):
        encode(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "data", "dtype", "shape", "function", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    json_values
    | st.fixed_dictionaries(
        {
            "kind": st.sampled_from(
                [
                    "list",
                    "tuple",
                    "set",
                    "dict",
                    "int",
                    "float",
                    "bytes",
                    "ndarray",
                    "tensor",
                    "build",
                    "none",
                ]
            )
        },
        optional={
            "data": json_values | st.text("AQID=", max_size=8),
            "dtype": st.sampled_from(["<f4", "|O", "<U3", "i4,i4", "float32", "M8[s]", "x"]),
            "shape": json_values | st.lists(st.integers(-2, 4), max_size=3),
        },
    )
)
def test_decoding_anything_gives_a_value_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        decode(data)


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (1, True, "expected 1 (int), got True (bool)"),
        (1.0, 1, "expected 1.0 (float), got 1 (int)"),
        ((1,), [1], "(tuple), got [1] (list)"),
        ([1, 2, 3], [1, 2], "expected a list of 3, got one of 2"),
        ({"a": 1}, {"b": 1}, "the key 'a' is missing"),
        ({"a": 1}, {"a": 1, "b": 2}, "the key 'b' should not be there"),
        ([{"a": (1, 2.0)}], [{"a": (1, 2.5)}], "at [0]['a'][1]: expected 2.0, got 2.5"),
        (np.zeros(3), np.zeros((3, 1)), "expected shape (3,), got (3, 1)"),
        (np.zeros(3), np.zeros(3, int), "expected dtype float64, got int64"),
        (np.eye(2), np.ones((2, 2)), "at [0, 1]: expected 0.0, got 1.0 (2 of 4 entries differ)"),
        (torch.zeros(2), np.zeros(2), "a tensor of shape (2,), got a numpy array"),
        (torch.zeros(2), torch.ones(2), "at [0]: expected 0.0, got 1.0"),
        (np.array(True), np.array(False), "expected True, got False"),
        (None, 0, "expected None, got 0 (int)"),
    ],
)
def test_the_first_difference_is_said(expected, got, words):
    assert words in compare(expected, got)


def test_what_is_the_same_for_our_purposes():
    assert compare(1.0, 1.000001) is None and compare(1.0, 1.0001, rtol=1e-3) is None
    assert compare(np.float32([1]), np.float64([1])) is None
    assert compare(np.array([math.nan]), np.array([math.nan])) is None and compare(math.inf, math.inf) is None
    assert compare(math.inf, -math.inf) is not None and compare(math.nan, 0.0) is not None
    assert compare(torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)) is None


def test_drawing_depends_on_the_seed_alone():
    test = Test("ps0.f", "t", "g", 1, lambda rng: [call("f", rng.normal(size=3))])
    assert np.array_equal(draw(test, "ada")[0].args[0], draw(test, "ada")[0].args[0])
    assert not np.array_equal(draw(test, "ada")[0].args[0], draw(test, "bob")[0].args[0])
    with pytest.raises(UserError, match="must yield"):
        draw(Test("ps0.f", "t", "g", 1, lambda rng: []), "ada")


def test_a_call_builds_its_arguments_where_it_is_made():
    namespace = {"f": lambda x, y: x + y, "twice": lambda x: 2 * x, "bad": lambda: {}["k"]}
    entry = json.loads(json.dumps(encode_call(call("f", build("twice", 4), y=[1][0]))))
    assert decode_call(entry, namespace)() == 9
    with pytest.raises(NameError, match="g is not defined"):
        decode_call(encode_call(call("g")), namespace)
    with pytest.raises(RuntimeError, match="bad failed: KeyError"):
        decode_call(encode_call(call("f", [build("bad")], 1)), namespace)


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """A folder with a checks.json of one exercise: f(2) is 4.0, f(0) raises ValueError; two hidden tests."""
    calls = [encode_call(call("f", 2)) | {"expected": 4.0}]
    raising = [encode_call(call("f", 0)) | {"raises": "ValueError"}]
    rest = {"goal": "squares", "points": 1, "rtol": 1e-5, "atol": 1e-7}
    tests = [{"name": "two", "calls": calls, **rest}, {"name": "zero", "calls": raising, **rest}]
    document = {"assignment": "ps0", "exercises": {"ps0.f": {"points": 4, "hidden": 2, "tests": tests}}}
    (tmp_path / "checks.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISDIAL_LAB_GRADING", raising=False)


def run(code: str) -> None:
    exec(f"{code}\ncheck('ps0.f')", {"check": check, "np": np})


def test_check_praises_and_says_what_is_still_to_come(checks, capsys):
    run("def f(x):\n    if not x: raise ValueError\n    return np.float64(x) ** 2")
    said = capsys.readouterr().out
    assert "2 of 2 tests pass" in said and "2 more tests will run at grading" in said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "f is not defined"),
        ("def f(x): raise NotImplementedError", "not implemented yet"),
        ("def f(x): return x + 1", "f(2)\n      expected 4.0 (float), got 3 (int)"),
        ("def f(x): return 4.0", "expected ValueError to be raised, got 4.0 (float)"),
        ("def f(x): return 1 / 0", "raised ZeroDivisionError: division by zero"),
        ("def f(x): return print", "not plain data"),
    ],
)
def test_check_says_what_is_wrong(checks, code, words):
    with pytest.raises(CheckFailed) as failed:
        run(code)
    assert words in str(failed.value)
    assert failed.value._render_traceback_() == str(failed.value).splitlines()  # what Jupyter shows


def test_check_of_an_unknown_exercise(checks):
    with pytest.raises(UserError, match=r"no exercise 'ps0.g' here; there are ps0.f"):
        check("ps0.g")
    with pytest.raises(UserError, match=r"checks.json of ps99 not found"):
        check("ps99.g")
