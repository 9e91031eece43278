"""Notebook 01 on the real VisDial: 116 val dialogs, text-only ones to count answers in, no pictures."""

import json
import shutil
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "01_data_exploration.ipynb"


@pytest.mark.slow
def test_exploring_the_real_visdial(shared_data, tmp_path, monkeypatch):
    papermill = pytest.importorskip("papermill")
    source, root = shared_data / "visdial", tmp_path / "visdial"
    root.mkdir()
    shutil.copy(source / "visdial_1.0_val_116.json", root / "visdial_1.0_val.json")
    dense = "visdial_1.0_val_dense_annotations.json"
    shutil.copy(source / "visdial_1.0_val_116_dense_annotations.json", root / dense)
    train = json.loads((source / "visdial_1.0_val_text_1851.json").read_text()) | {"split": "train"}
    (root / "visdial_1.0_train.json").write_text(json.dumps(train))
    (tmp_path / "real.yaml").write_text(
        f"data: {{root: {root}, num_train_dialogs: null, num_val_dialogs: null}}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    done = papermill.execute_notebook(
        str(NOTEBOOK),
        None,
        parameters={"PROFILE": str(tmp_path / "real.yaml"), "OUTPUT": str(tmp_path / "run")},
        progress_bar=False,
        cwd=str(NOTEBOOK.parent),
        kernel_name="python3",
    )
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "no pictures here" in text and "a better candidate than the human answer: in 53% of" in text
    assert (
        "random     MRR 0.052" in text and "position   MRR 0.140" in text and "sorted     MRR 0.131" in text
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert (tmp_path / "run" / "manifest_01.json").is_file()
