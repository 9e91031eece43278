"""The pipeline: order, resuming, failing, being killed, and the report. Notebooks are stubs of a second."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import hear_ctrl_c
from stub_course import BODIES, make_course, stub_config, write_notebook

from visdial_lab import backends, pipeline
from visdial_lab.config import load_config
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.pipeline import STEPS, run_pipeline

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def course(tmp_path, monkeypatch):
    make_course(tmp_path)
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A course whose pipeline has run once, for tests that only look, or break and mend one thing."""
    root = tmp_path_factory.mktemp("course")
    make_course(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISDIAL_LAB_ROOT", str(root))
        patch.chdir(root)
        steps = []
        report = run_pipeline(stub_config(root), root / "run", progress=lambda *step: steps.append(step))
    return root, report, steps


@pytest.fixture
def again(finished, monkeypatch):
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(finished[0]))
    monkeypatch.chdir(finished[0])
    return finished[0]


def start(root: Path, *options: str, **kwargs) -> subprocess.Popen:
    environment = os.environ | {"VISDIAL_LAB_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "visdial_lab", "pipeline", "--config", "stub.yaml", "--output", "run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    kwargs.setdefault("preexec_fn", hear_ctrl_c)
    return subprocess.Popen([*command, *options], cwd=root, env=environment, **pipes, **kwargs)


def wait_for(condition, process, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "did not come to that point"
        time.sleep(0.01)


def executed(run: Path) -> dict[str, int]:
    """When each executed notebook was written, to see which ones ran again."""
    return {path.stem[:2]: path.stat().st_mtime_ns for path in (run / "notebooks").glob("*.ipynb")}


def leftovers(run: Path) -> list[str]:
    return [str(path) for path in run.rglob(".*.tmp-*")]


def test_a_run_leaves_everything_and_counts_all_cells(finished):
    root, report, steps = finished
    run = root / "run"
    assert report == run / "report.html" and report.is_file()
    assert load_config(run / "config.yaml") == stub_config(root)
    assert sorted(executed(run)) == ["01", "02", "03", "04", "05"]
    for path in (run / "notebooks").glob("*.ipynb"):
        text = path.read_text()
        assert str(root) not in text, "a path of this machine"
        counts = [c["execution_count"] for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        assert None not in counts
    done = [step[0] for step in steps]
    assert done == sorted(done) and done[0] == 0 and done[-1] == steps[-1][1] == 6 * 5
    assert [*dict.fromkeys(step[2] for step in steps)] == list(BODIES)
    assert not leftovers(run)


def test_a_finished_run_is_not_run_again(again):
    before = executed(again / "run")
    run_pipeline(stub_config(again), again / "run")
    assert executed(again / "run") == before


def test_what_changed_runs_again_and_what_follows_from_it(again):
    before = executed(again / "run")
    lab = again / "run" / "adapter" / "lab.json"
    lab.write_text(lab.read_text().replace("75.0", "76.0"))  # 03 no longer left what its manifest says
    write_notebook(again / "notebooks", "05_metrics", BODIES["05_metrics"] + "\n# edited")
    run_pipeline(stub_config(again), again / "run")
    after = executed(again / "run")
    assert {number for number in after if after[number] != before[number]} == {"03", "05"}
    assert "75.0" in lab.read_text()


def test_another_configuration_is_refused_with_the_difference(again):
    other = load_config("stub.yaml", {"training.max_steps": 7})
    with pytest.raises(UserError, match=r"another configuration \(training\.max_steps -1, now 7\)"):
        run_pipeline(other, again / "run")
    assert load_config(again / "run" / "config.yaml").training.max_steps == -1


def test_a_second_pipeline_in_the_same_folder_is_refused(again):
    import fcntl

    with (again / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another pipeline is at work"):
            run_pipeline(stub_config(again), again / "run")


def test_foreign_folders_and_files_are_refused_and_kept(course):
    (course / "mine").mkdir()
    (course / "mine" / "notebooks").mkdir()
    (course / "mine" / "thesis.txt").write_text("years of work")
    for resume in (True, False):
        with pytest.raises(UserError, match=r"holds other files \(thesis\.txt\)"):
            run_pipeline(stub_config(course), course / "mine", resume=resume)
    with pytest.raises(UserError, match="is a file"):
        run_pipeline(stub_config(course), course / "stub.yaml")
    with pytest.raises(UserError, match="holds other files"):
        run_pipeline(stub_config(course), course)
    assert (course / "mine" / "thesis.txt").is_file() and (
        course / "notebooks" / "05_metrics.ipynb"
    ).is_file()


def test_a_gpus_profile_without_a_gpu_is_refused_before_anything_else(course, monkeypatch):
    """Data and model of that profile are missing too: the GPU is what to know first."""
    monkeypatch.setattr(backends, "pick_device", lambda: "cpu")
    with pytest.raises(
        UserError, match=r"needs a CUDA GPU, and there is none\. Here the profile scenes runs"
    ):
        run_pipeline(load_config("gemma3-4b"), course / "big")
    assert not (course / "big").exists()


@pytest.mark.slow
def test_what_a_gpu_has_trained_may_be_reported_without_one(again, monkeypatch):
    config = load_config("stub.yaml", {"training.bf16": True})
    monkeypatch.setattr(backends, "pick_device", lambda: "cuda")
    run_pipeline(config, again / "trained")
    monkeypatch.setattr(backends, "pick_device", lambda: "cpu")
    assert run_pipeline(config, again / "trained").is_file()
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        run_pipeline(config, again / "trained", resume=False)


def test_steps_to_skip(course):
    with pytest.raises(UserError, match="--skip 'trainnig' is no step; the steps are: exploration, gen"):
        run_pipeline(stub_config(course), course / "run", skip=["trainnig"])
    with pytest.raises(UserError, match=r"--skip generation: .* holds no records\.jsonl"):
        run_pipeline(stub_config(course), course / "run", skip=["exploration", "generation"])
    everything_but_one = [step for step in STEPS if step != "generation"]
    assert run_pipeline(stub_config(course), course / "run", skip=everything_but_one) == course / "run"
    assert list(executed(course / "run")) == ["02"] and not (course / "run" / "report.html").exists()


def test_beginning_anew_removes_what_is_ours_and_nothing_else(course):
    only_generation = [step for step in STEPS if step != "generation"]
    run_pipeline(stub_config(course), course / "run", skip=only_generation)
    (course / "run" / "history.json").write_text("old")
    (course / "run" / "my notes.txt").write_text("mine")
    other = load_config("stub.yaml", {"training.max_steps": 7})
    run_pipeline(other, course / "run", resume=False, skip=only_generation)
    assert load_config(course / "run" / "config.yaml") == other
    left = {path.name for path in (course / "run").iterdir() if path.name != ".lock"}
    made = {"config.yaml", "manifest_02.json", "notebooks", "records.jsonl"}
    assert left == made | {"my notes.txt"}


def test_a_failing_notebook_is_named_and_kept_then_mended_and_resumed(course):
    config, run = stub_config(course), course / "run"
    broken = {
        "raise ValueError('the cat\\nsat')": r"In \[\d\]: ValueError: the cat sat; it is kept",
        "os._exit(1)": r"cell 5: DeadKernelError: Kernel died",
    }
    for line, message in broken.items():
        write_notebook(course / "notebooks", "02_data_generation", line)
        with pytest.raises(WorkFailed, match=f"notebook 02_data_generation, {message}"):
            run_pipeline(config, run)
        cells = json.loads((run / "notebooks" / "02_data_generation.ipynb").read_text())["cells"]
        errors = [o["ename"] for c in cells for o in c.get("outputs", ()) if o["output_type"] == "error"]
        assert errors == [re.search(r": (\w+):", message)[1]], "the error is inside the notebook"
    first = executed(run)["01"]
    assert not (run / "manifest_02.json").exists() and not leftovers(run)
    write_notebook(course / "notebooks", "02_data_generation", BODIES["02_data_generation"])
    assert run_pipeline(config, run, skip=["training", "inference", "evaluation"]) == run
    assert executed(run)["01"] == first, "the notebook that had worked was not run again"


def test_a_cell_that_takes_too_long(course):
    config = load_config("stub.yaml", {"notebooks.timeout": 1})
    write_notebook(course / "notebooks", "01_data_exploration", "time.sleep(60)")
    with pytest.raises(WorkFailed, match=r"01_data_exploration, cell 5: CellTimeoutError"):
        run_pipeline(config, course / "run")


def test_a_long_cell_is_heard_of_with_what_it_printed_last(course, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "_SILENCE", 0.2)
    body = "print('earlier')\nprint('40 of 150 dialogs', flush=True)\ntime.sleep(1)\nread = wrote = []"
    write_notebook(course / "notebooks", "01_data_exploration", body)
    steps, skip = [], [step for step in STEPS if step != "exploration"]
    run_pipeline(stub_config(course), course / "run", skip=skip, progress=lambda *step: steps.append(step))
    heard = [step for step in steps if step[2] == "01_data_exploration: 40 of 150 dialogs"]
    assert len(heard) >= 2 and {step[:2] for step in heard} == {(4, 6)}
    assert steps[-1] == (6, 6, "01_data_exploration"), "and no word after the end"


def test_an_unknown_kernel(course):
    config = load_config("stub.yaml", {"notebooks.kernel_name": "cobol"})
    with pytest.raises(UserError, match=r"notebooks\.kernel_name: no Jupyter kernel 'cobol' here"):
        run_pipeline(config, course / "run")


@pytest.mark.slow
def test_killed_anywhere_and_run_again_gives_the_same_result(course, again):
    run = course / "run"
    moments = (
        lambda: any((run / "notebooks").glob(".02*")),  # in the middle of a notebook
        lambda: (run / "manifest_03.json").exists(),  # all work done, the executed notebook not yet in place
        lambda: (run / "predictions_after.json").exists(),  # some of a notebook's files there
    )
    for moment in moments:
        process = start(course)
        wait_for(moment, process)
        process.kill()
        process.communicate()
    process = start(course)
    assert process.wait(60) == 0, process.communicate()[1]
    assert not leftovers(run)
    for name in ("metrics.json", "predictions_after.json", "history.json"):
        assert (run / name).read_bytes() == (again / "run" / name).read_bytes()


def test_ctrl_c_is_one_line_and_leaves_no_process_and_no_litter(course):
    write_notebook(course / "notebooks", "02_data_generation", "(run / 'here').touch()\ntime.sleep(25)")
    process = start(course)
    wait_for((course / "run" / "here").exists, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; what was finished before is kept"
    assert "Traceback" not in errors and not leftovers(course / "run")
    assert list(executed(course / "run")) == ["01"]


def test_a_full_disk_while_writing_the_report(again):
    import resource

    report = again / "run" / "report.html"
    before = report.read_bytes()
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    process = start(again, preexec_fn=small)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert re.search(r"error: cannot write .*report\.html: File too large; free space", errors)
    assert report.read_bytes() == before and not leftovers(again / "run")


def test_the_report_tells_the_runs_own_numbers_and_needs_nothing_else(finished):
    root, report, _ = finished
    page = report.read_text()
    assert "<h1>In 75 seconds on a CPU, MRR rose from 0.20 to 0.60</h1>" in page
    assert "80% of the gap closed" in page and "50% of the gap closed" in page  # MRR and NDCG
    assert "do not overlap for MRR and NDCG" in page
    assert "what the history is worth" in page and "+0.150 to +0.250" in page
    assert "what the picture is worth" not in page, "nobody compared after with blind"
    assert len(page) < 3_000_000
    outside = re.findall(r"""(?:src|href)=["'](?!data:)([^"']*)|url\(|@import|<script|<link""", page)
    assert not outside
    assert "&lt;i&gt;after&lt;/i&gt;" in page and "<i>after</i>" not in page
    assert str(root) not in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) >= 3 + 4 + 2 and all(re.search(r'alt="[^"]+"', image) for image in images)
    assert page.count('<details class="dialog"') == 2
    assert page.count("ranked first in 0 → 3 of 3 rounds") == 2


def test_a_report_without_results_says_what_to_do(again):
    from visdial_lab.report import write_report

    path = again / "run" / "metrics.json"
    good = path.read_text()
    try:
        path.write_text('{"metrics": {}}')
        with pytest.raises(UserError, match=r"metrics\.json: no results of before and after"):
            write_report(again / "run")
    finally:
        path.write_text(good)


def test_a_report_of_a_text_only_model_claims_no_sight(again):
    from visdial_lab.report import write_report

    path = again / "run" / "metrics.json"
    good = path.read_text()
    gain = {"difference": 0.0, "interval": [0.0, 0.0], "p_better": 0.5}
    try:
        path.write_text(json.dumps(json.loads(good) | {"after_minus": {"blind": {"mrr": gain}}}))
        page = write_report(again / "run").read_text(encoding="utf-8")
        assert "reads text only" in page and "what the picture is worth" not in page
    finally:
        path.write_text(good)
        assert "can describe pictures" in write_report(again / "run").read_text(encoding="utf-8")
