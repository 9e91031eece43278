"""The profile: what is accepted, and that every mistake is named with its place."""

import contextlib
import math
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from visdial_lab import config as config_module
from visdial_lab.config import Config, config_to_yaml, load_config, profile_names
from visdial_lab.errors import UserError

SCENES = config_module._PROFILES / "scenes.yaml"


def message(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        load_config(*args, **kwargs)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2 and len(text) < 600, text
    return text


def test_importing_the_package_is_light_and_its_names_are_there():
    probe = (
        "import sys, time; t = time.process_time(); import visdial_lab as v; t = time.process_time() - t;"
        "heavy = {'numpy', 'torch', 'pydantic', 'PIL', 'transformers', 'yaml'} & set(sys.modules);"
        "assert not heavy and t < 0.1, (heavy, t); assert v.load_config().name == 'scenes';"
        "assert v.VisDial.__name__ in dir(v) and not hasattr(v, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


def test_default_profile_loads_and_is_frozen():
    config = load_config()
    assert config.name == "scenes" and config == load_config("scenes")
    assert config.training.learning_rate == 3e-3 and config.data.num_train_dialogs is None
    with pytest.raises(ValueError):
        config.training.seed = 1


def test_scenes_profile_is_complete_and_explains_every_key():
    tree = yaml.safe_load(SCENES.read_text())
    keys = [
        "name",
        *(f"{section}.{key}" for section, part in tree.items() if section != "name" for key in part),
    ]
    assert sorted(keys) == sorted(config_module._KEYS)
    for line in SCENES.read_text().splitlines():
        if re.match(r"\s*\w+: \S", line):
            assert " # " in line, f"no comment: {line}"


def test_every_profile_of_the_package_loads():
    assert "scenes" in profile_names()
    for name in profile_names():
        assert load_config(name).name == name


def test_a_file_needs_only_what_differs(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training:\n  learning_rate: 1e-4\n")  # YAML 1.1 reads this as text
    config = load_config(path)
    assert config.name == "mine" and config.training.learning_rate == 1e-4
    assert config.peft == load_config().peft
    path.write_text("")
    assert load_config(path) == load_config(overrides={"name": "mine"})
    path.write_text("base: scenes\nname: other\ntraining:\n")
    assert load_config(str(path)) == load_config(overrides={"name": "other"})


def test_overrides_win_and_accept_null():
    config = load_config(overrides={"data.num_val_dialogs": 7, "training.learning_rate": "2e-5", "peft.r": 4})
    assert (config.data.num_val_dialogs, config.training.learning_rate, config.peft.r) == (7, 2e-5, 4)
    assert load_config(overrides={"data.num_val_dialogs": None}).data.num_val_dialogs is None
    assert load_config(overrides={"generation.rounds": 3}).generation.rounds == 3
    assert load_config(overrides={"training.max_steps": 5, "training": {"seed": 1}}).training.max_steps == 5


def test_yaml_round_trip(tmp_path):
    config = load_config(
        overrides={"training.learning_rate": 1e-05, "name": "한글 e1", "data.num_val_dialogs": 3}
    )
    (tmp_path / "run.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.seed", True, "a whole number"),
        ("training.seed", "8", "a whole number"),
        ("training.seed", 1.5, "a whole number"),
        ("training.seed", -1, "from 0 up"),
        ("training.learning_rate", "fast", "a number"),
        ("training.learning_rate", True, "a number"),
        ("training.learning_rate", "nan", "a finite number"),
        ("training.learning_rate", math.inf, "a finite number"),
        ("training.learning_rate", 0, "above 0"),
        ("training.learning_rate", None, "got null"),
        ("training.fp16", 1, "true or false"),
        ("training.fp16", "yes", "true or false"),
        ("training.max_steps", 0, "-1 or a number from 1 up"),
        ("training.optim", "adam", "'adamw_torch'"),
        ("training.num_train_epochs", -1, "above 0"),
        ("peft.bias", "some", "'none'"),
        ("peft.lora_dropout", 1, "below 1"),
        ("peft.r", 0, "from 1 up"),
        ("data.num_train_dialogs", 0, "from 1 up"),
        ("data.num_train_dialogs", "many", "a whole number"),
        ("data.root", "", "not empty"),
        ("data.root", ["a"], "text"),
        ("model.name", "a\0b", "control characters"),
        ("inference.top_p", 2, "up to 1"),
        ("inference.temperature", 10**400, "a"),
        ("generation.rounds", "some", "'all', 'last' or 'random' or a whole number"),
        ("evaluation.confidence", 95, "below 1"),
    ],
)
def test_wrong_values_are_named_with_place_expected_and_got(key, value, expected):
    text = message(overrides={key: value})
    assert text.startswith(f"override: {key}: expected ") and expected in text and ", got " in text


def test_the_file_of_the_mistake_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("peft:\n  r: big\n")
    assert f"{path}: peft.r: expected a whole number, got 'big'" in message(path)
    assert message(path, overrides={"peft.r": 1.5}).startswith("override: peft.r")
    assert message(path, overrides={"peft.r": 1, "training.seed": "x"}).startswith("override: training.seed")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.learing_rate", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("peft.lora_aplha", "peft.lora_alpha"),
        ("model.lora_alpha", "peft.lora_alpha"),
        ("trainng", "training"),
        ("nme", "name"),
    ],
)
def test_unknown_key_names_the_nearest(key, nearest):
    assert f"unknown key {key!r} (did you mean {nearest}?)" in message(overrides={key: 1})


def test_unlike_anything_gets_no_guess():
    assert "did you mean" not in message(overrides={"zzz": 1})
    assert "unknown key 3" in message(overrides={3: 1})


def test_contradictions():
    assert "choose one" in message(overrides={"training.fp16": True, "training.bf16": True})
    nothing = {"peft.finetune_attention_modules": False, "peft.finetune_mlp_modules": False}
    assert "nothing to train" in message(overrides=nothing)
    layers = {"peft.finetune_vision_layers": False, "peft.finetune_language_layers": False}
    assert "nothing to train" in message(overrides=layers)


def test_unknown_profile_lists_the_profiles(tmp_path):
    text = message("scene")
    assert "did you mean scenes?" in text and ", ".join(profile_names()) in text
    assert "not found" in message(tmp_path / "none.yaml")
    assert "folder" in message(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("peft:\n  r: 1\n  r: 2\n", "line 3, column 3: not valid YAML (key 'r' is given twice)"),
        ("peft: {}\npeft: {}\n", "line 2, column 1"),
        ("peft:\n\tr: 1\n", "line 2, column 1"),
        ("peft: [1\n", "line 2"),
        ("- a\n- b\n", "expected sections"),
        ("peft: 3\n", "peft is a section"),
        ("x: &a [*a]\n", "unknown key 'x'"),
        ("peft: {[1]: 2}\n", "not valid YAML"),
        ("a: 2020-99-99\n", "not valid YAML"),
        ("a: !!timestamp x\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("[" * 800, "not valid YAML"),
        ("base: nowhere\n", "unknown base 'nowhere'"),
        ("base: [scenes]\n", "unknown base"),
        ("name: [" + "1," * 5000 + "]", "expected text"),
    ],
)
def test_bad_yaml(tmp_path, text, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert expected in message(path) and str(path) in message(path)


def test_not_text(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"name: ok\nmodel: \xff\xfe\n")
    assert "line 2: not UTF-8" in message(path)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers())
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(config_module._KEYS) | st.text(max_size=12), VALUES, max_size=4))
def test_any_overrides_give_a_config_or_a_user_error(overrides):
    try:
        config = load_config(overrides=overrides)
    except UserError as error:
        assert len(str(error).splitlines()) <= 2
        return
    assert isinstance(config, Config)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-[]{}!&*#'\"|>%@` \n\t0.", max_size=40) | st.binary(max_size=30))
def test_any_file_gives_a_config_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "f.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with contextlib.suppress(UserError):
        load_config(path)
