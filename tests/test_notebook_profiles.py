"""Every cell of every notebook on the settings of the other profiles: a tiny model, a few dialogs, no GPU.

The big profiles cannot run here. What is theirs alone runs: other optimizer, batches by length, checkpoints
measured on the way, 16 bits or 4, a model without pictures.
"""

import json

import pytest
import tiny_model
import tiny_profile
from notebook_runs import NOTEBOOKS, run_notebook, text

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("base", ["gemma3-4b", "gemma3-4b-t4", "gemma3-270m-blind"])
def test_the_notebooks_run_in_the_big_profiles(base, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(scenes.parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    build = tiny_model.build_text if base == "gemma3-270m-blind" else tiny_model.build
    profile = tiny_profile.write(tmp_path, base, build(tmp_path / "model", width=64))
    printed = {name: text(run_notebook(name, profile, tmp_path / "run")) for name in NOTEBOOKS}
    assert f"profile {base}-tiny" in printed["01_data_exploration"]
    lab = json.loads((tmp_path / "run" / "adapter" / "lab.json").read_text())
    assert lab["config"]["model"]["load_in_4bit"] == (base == "gemma3-4b-t4")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_rounds"] == 40 and {"before", "after", "blind"} <= set(metrics["runs"])
    assert all((tmp_path / "run" / f"manifest_{name[:2]}.json").is_file() for name in NOTEBOOKS)
