"""The sweeps of notebook 03: the recipe that measures them, and what it has left in data/sweeps."""

import sys
from pathlib import Path

import pytest
import sweep_finetuning

from visdial_lab.config import load_config
from visdial_lab.files import read_json

SWEEPS = Path(__file__).resolve().parents[1] / "data" / "sweeps" / "finetuning.json"


def test_every_configuration_is_a_valid_one_and_the_profile_is_among_them():
    found = sweep_finetuning.configurations()
    assert found["profile"]["overrides"] == {} and found["profile"]["trained"]
    seen = [(*sorted(one["overrides"].items()), one["trained"]) for one in found.values()]
    assert len(set(seen)) == len(seen), "none is trained twice"
    for name, one in found.items():
        config = load_config("scenes", {**sweep_finetuning.OURS, **one["overrides"]})
        assert config.peft.lora_alpha == 2 * config.peft.r, name
    sweeps = {one["sweep"] for one in found.values()}
    assert sweeps == {"seed", "rank", "learning rate", "modules", "precision", "dialogs"}
    assert sum(one["sweep"] == "seed" for one in found.values()) == 5


def test_a_fixed_number_of_steps_is_the_profiles():
    """Fewer dialogs are read more often: only what is read differs, not how long."""
    training = load_config("scenes").training
    assert sweep_finetuning.profile_steps() == round(600 * training.num_train_epochs / 4)


def test_the_committed_sweeps_are_of_these_records_this_model_and_this_profile():
    """Whoever changes one of them has to measure again."""
    measured = read_json(SWEEPS)
    rows, digest = sweep_finetuning.rows_of(None, "plain")
    assert measured["records"] == {"count": len(rows), "sha256": digest}
    profile = load_config("scenes").model_dump(include={"model", "peft", "generation"})
    assert {key: measured["profile"][key] for key in profile} == profile
    assert measured["val"] == {"dialogs": 150, "rounds": 1500}
    chosen = sweep_finetuning.configurations()
    assert measured["runs"].keys() == chosen.keys()
    for name, run in measured["runs"].items():
        assert run["overrides"] == chosen[name]["overrides"]
        for key in ("mrr", "ndcg"):
            low, high = run["intervals"][key]
            assert 0 < low <= run["metrics"][key] <= high < 1


@pytest.mark.slow
def test_a_trial_by_two_parts_is_joined_and_not_repeated(tmp_path, monkeypatch, capsys, one_thread):
    def call(*options):
        given = ["--work", str(tmp_path), "--output", str(tmp_path / "out.json"), "--limit", "2"]
        only = ["--only", "profile", "precision-base in full"]
        monkeypatch.setattr(sys, "argv", ["sweep_finetuning.py", *given, *only, *options])
        sweep_finetuning.main()
        return capsys.readouterr().out

    assert "still to measure" in call("--part", "1/2") and not (tmp_path / "out.json").exists()
    assert "still to measure" not in call("--part", "2/2")
    assert call() == "", "nothing is measured again"
    found = read_json(tmp_path / "out.json")
    tuned, base = found["runs"]["profile"], found["runs"]["precision-base in full"]
    assert tuned["steps"] == 2 and tuned["trainable"] == 540_672 and "steps" not in base
    assert found["val"] == {"dialogs": 2, "rounds": 20} and "--limit 2" in found["made by"]
    assert set(base["minus profile"]) == {"mrr", "ndcg", "r@1"} and "minus profile" not in tuned
