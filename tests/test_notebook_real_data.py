"""Notebooks 01 and 02 on the real VisDial: 116 val dialogs, text-only ones for train, no pictures."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_model

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture
def real(shared_data, tmp_path):
    """A data folder with what there is of the real VisDial, under the official names."""
    source, root = shared_data / "visdial", tmp_path / "visdial"
    root.mkdir()
    shutil.copy(source / "visdial_1.0_val_116.json", root / "visdial_1.0_val.json")
    dense = "visdial_1.0_val_dense_annotations.json"
    shutil.copy(source / "visdial_1.0_val_116_dense_annotations.json", root / dense)
    train = json.loads((source / "visdial_1.0_val_text_1851.json").read_text()) | {"split": "train"}
    (root / "visdial_1.0_train.json").write_text(json.dumps(train))
    return root


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(name of a notebook, profile as a dict) → all its outputs; results are in tmp_path / "run"."""
    import papermill

    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))

    def execute(name: str, profile: dict) -> list:
        (tmp_path / "real.yaml").write_text(json.dumps(profile))
        done = papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"),
            None,
            parameters={"PROFILE": str(tmp_path / "real.yaml"), "OUTPUT": str(tmp_path / "run")},
            progress_bar=False,
            cwd=str(NOTEBOOKS),
            kernel_name="python3",
        )
        assert (tmp_path / "run" / f"manifest_{name[:2]}.json").is_file()
        return [output for cell in done.cells for output in cell.get("outputs", [])]

    return execute


def written(outputs: list) -> str:
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "".join(output.get("text", "") for output in outputs)


def played(outputs: list) -> str:
    """The first picture of the one play cell."""
    widget = "application/vnd.jupyter.widget-view+json"
    (page,) = [output["data"]["text/html"] for output in outputs if widget in output.get("data", {})]
    return page


@pytest.mark.slow
def test_exploring_the_real_visdial(real, run):
    data = {"root": str(real), "num_train_dialogs": None, "num_val_dialogs": None}
    outputs = run("01_data_exploration", {"data": data})
    text = written(outputs)
    assert "no pictures here" in text and "a better candidate than the human answer: in 53% of" in text
    assert "random     MRR 0.052, 1.0 times chance" in text
    assert "position   MRR 0.140, 2.7 times" in text and "sorted     MRR 0.131, 2.5 times" in text
    assert text.count("no truth file here") == 2
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    assert "no image" in played(outputs) and "100 candidates" in played(outputs)


@pytest.mark.slow
def test_records_of_the_real_visdial_for_a_model_that_only_reads(real, run, tmp_path):
    tiny_model.build_text(tmp_path / "blind")
    data = {"root": str(real), "num_train_dialogs": 200, "num_val_dialogs": None}
    model = {"name": str(tmp_path / "blind"), "load_in_4bit": False}
    outputs = run("02_data_generation", {"data": data, "model": model, "training": {"max_seq_length": 4096}})
    text = written(outputs)
    assert "of these, picture:  0" in text and "200 records" in text
    assert "all 10 prompts are beginnings of the one sequence" in text
    assert "image_soft_token" not in played(outputs) and played(outputs).count("control token") == 2
