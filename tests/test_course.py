"""The helpers that notebooks begin and end with."""

import json

import numpy as np
import pytest

from visdial_lab import UserError, VisDial, load_config, setup
from visdial_lab import course as lab
from visdial_lab.errors import WorkFailed
from visdial_lab.files import course_root, fingerprint, sha256, write_json


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: x\n")
    return tmp_path / "run"


class TestSetup:
    def test_gives_config_and_run_folder_and_says_so(self, tmp_path, capsys):
        config, run = setup("scenes", tmp_path / "out")
        assert config == load_config("scenes") and run == tmp_path / "out"
        assert load_config(run / "config.yaml") == config
        assert len(capsys.readouterr().out.strip().splitlines()) == 3

    def test_relative_output_counts_from_the_course_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tmp_path))
        (tmp_path / "notebooks" / "mine").mkdir(parents=True)  # even if it exists beside the notebook
        monkeypatch.chdir(tmp_path / "notebooks")
        _, run = setup("scenes", "mine")
        assert run == course_root() / "mine" and (run / "config.yaml").is_file()

    @pytest.mark.parametrize("output", [None, ""])
    def test_no_output_means_the_profile_s_own(self, output, tmp_path, monkeypatch):
        monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tmp_path))
        config, run = setup("scenes", output)
        assert run == tmp_path / config.notebooks.output_dir

    def test_overrides_may_be_text_as_papermill_gives_them(self, tmp_path):
        config, _ = setup("scenes", tmp_path, **{"training.learning_rate": "1e-4"})
        assert config.training.learning_rate == 1e-4

    @pytest.mark.parametrize("profile, output, word", [(3, None, "PROFILE"), ("scenes", 3, "OUTPUT")])
    def test_wrong_types_are_named(self, profile, output, word):
        with pytest.raises(UserError, match=word):
            setup(profile, output)

    def test_unknown_profile_leaves_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="scenes"):
            setup("scnes", tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestStory:
    def test_by_id_or_the_first(self, val, capsys):
        assert lab.story(val, val[2].image_id) == val[2]
        assert capsys.readouterr().out == ""
        assert lab.story(val, 999_999) == val[0]
        assert capsys.readouterr().out == f"no dialog about image 999999 here: following {val[0].image_id}\n"

    @pytest.mark.parametrize("wrong", ["1008", 1.0, None, True])
    def test_wrong_type(self, val, wrong):
        with pytest.raises(UserError, match="IMAGE_ID"):
            lab.story(val, wrong)


class TestManifest:
    def test_says_what_was_read_and_written(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tmp_path))
        (tmp_path / "data.json").write_text("[]")
        (run / "adapter").mkdir()
        (run / "adapter" / "lab.json").write_text("{}")
        lab.manifest(run, "03_training", read=["data.json"], wrote=["adapter"])
        entry = json.loads((run / "manifest_03.json").read_text())
        assert entry == {
            "notebook": "03_training",
            "config_sha256": sha256(run / "config.yaml"),
            "read": {"data.json": sha256(tmp_path / "data.json")},
            "wrote": {"adapter": sha256(run / "adapter")},
        }

    def test_holds_until_a_file_changes_or_goes(self, run):
        (run / "records.jsonl").write_text("1")
        assert not lab.manifest_holds(run, "02_generation"), "not written yet"
        lab.manifest(run, "02_generation", wrote=["records.jsonl"])
        assert lab.manifest_holds(run, "02_generation")
        (run / "records.jsonl").write_text("2")
        assert not lab.manifest_holds(run, "02_generation")
        (run / "records.jsonl").unlink()
        assert not lab.manifest_holds(run, "02_generation")
        (run / "records.jsonl").write_text("1")
        assert lab.manifest_holds(run, "02_generation")
        (run / "config.yaml").write_text("name: y\n")
        assert not lab.manifest_holds(run, "02_generation")

    def test_missing_file_and_bad_name(self, run):
        with pytest.raises(UserError, match="nothing"):
            lab.manifest(run, "03_training", wrote=["nothing.json"])
        with pytest.raises(UserError, match="03_qlora"):
            lab.manifest(run, "training")
        assert not list(run.glob("manifest*"))

    def test_need_names_the_notebook(self, run):
        assert lab.need(run, "config.yaml", "01") == run / "config.yaml"
        with pytest.raises(UserError, match="run notebook 03 first"):
            lab.need(run, "adapter", "03")

    def test_on_colab_the_command_that_makes_it(self, tmp_path, monkeypatch):
        """There every notebook that is opened has a machine of its own, with an empty run folder."""
        (tmp_path / "notebooks").mkdir()
        (tmp_path / "notebooks" / "03_qlora_finetuning.ipynb").touch()
        monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tmp_path))
        monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
        monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
        with pytest.raises(UserError) as error:
            lab.need(tmp_path / "my run", "adapter", "03")
        about, command = str(error.value).splitlines()
        assert about.endswith("Colab gives each notebook a machine of its own, so run it on this one:")
        made = "-p PROFILE 'my run'/config.yaml -p OUTPUT 'my run'"
        assert command == f"!papermill notebooks/03_qlora_finetuning.ipynb runs/03.ipynb {made}"


class TestScores:
    def scores(self, dialogs):
        rng = np.random.default_rng(0)
        return [[None if t.options is None else rng.normal(size=100) for t in d.rounds] for d in dialogs]

    @pytest.mark.parametrize("split", ["val", "test"])  # in test, most rounds have no options
    def test_come_back_as_they_were(self, run, tiny, split):
        dialogs = VisDial.load(tiny, split)
        scores = self.scores(dialogs)
        lab.save_scores(run, "after", dialogs, scores, "abc")
        back = lab.load_scores(run, "after", dialogs, "abc")
        assert len(back) == len(scores)
        for own, saved in zip(scores, back, strict=True):
            assert [row is None for row in own] == [row is None for row in saved]
            pairs = zip(own, saved, strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs if a is not None)

    def test_made_from_something_else_or_absent(self, run, val):
        assert lab.load_scores(run, "after", val, "abc") is None
        lab.save_scores(run, "after", val, self.scores(val), "abc")
        assert lab.load_scores(run, "after", val, "abd") is None

    def test_damaged_file(self, run, val):
        path = lab.save_scores(run, "after", val, self.scores(val), "abc")
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UserError, match="delete it"):
            lab.load_scores(run, "after", val, "abc")

    def test_fingerprint_depends_on_every_part(self):
        assert fingerprint("a", 1, True) == fingerprint("a", 1, True)
        assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("a", "1")}) == 3


class TestTrainedAlready:
    @pytest.fixture
    def trained(self, run, tmp_path):
        """A run folder as notebook 03 leaves it, with a base model folder of its own."""
        base = tmp_path / "base"
        base.mkdir()
        (base / "config.json").write_text("{}")
        config = load_config("scenes", {"model.name": str(base)})
        (run / "records.jsonl").write_text('{"id": 1}\n')
        write_json(run / "history.json", [])
        notes = {
            "config": config.model_dump(),
            "records": {"sha256": sha256(run / "records.jsonl")},
            "base_model_sha256": sha256(base),
        }
        write_json(run / "adapter" / "lab.json", notes)
        return run, config, base

    def test_same_everything(self, trained):
        run, config, _ = trained
        assert lab.trained_already(run, config)

    def test_other_settings_that_matter(self, trained):
        run, _, base = trained
        other = load_config("scenes", {"model.name": str(base), "training.learning_rate": 1e-5})
        assert not lab.trained_already(run, other)
        harmless = load_config("scenes", {"model.name": str(base), "evaluation.seed": 5})
        assert lab.trained_already(run, harmless)

    @pytest.mark.parametrize("name", ["records.jsonl", "history.json", "adapter/lab.json"])
    def test_missing_parts(self, trained, name):
        run, config, _ = trained
        (run / name).unlink()
        assert not lab.trained_already(run, config)

    def test_other_records_or_base_model(self, trained):
        run, config, base = trained
        (run / "records.jsonl").write_text('{"id": 2}\n')
        assert not lab.trained_already(run, config)
        (run / "records.jsonl").write_text('{"id": 1}\n')
        (base / "config.json").write_text('{"new": 1}')
        assert not lab.trained_already(run, config)


@pytest.mark.parametrize("kind", [UserError, WorkFailed])
def test_a_notebook_shows_the_message_alone(kind):
    """As IPython does it: the exception says what stands in the place of its traceback."""
    from IPython.core.interactiveshell import InteractiveShell

    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda kind, error, lines: shown.extend(lines)
    shell.user_ns["kind"] = kind
    result = shell.run_cell("raise kind('records.jsonl is not there yet:\\nrun notebook 02 first')")
    assert isinstance(result.error_in_exec, kind)
    assert [line.replace("\x1b[31m", "").replace("\x1b[39m", "") for line in shown] == [
        f"{kind.__name__}: records.jsonl is not there yet:",
        "run notebook 02 first",
    ]
