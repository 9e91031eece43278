"""The doctor tells gaps and what to do about each."""

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from visdial_lab import doctor
from visdial_lab.cli import main
from visdial_lab.errors import UserError


@pytest.fixture
def needs(monkeypatch):
    """Pretend that the package declares these requirements."""

    def declare(*lines):
        monkeypatch.setattr(metadata, "requires", lambda name: list(lines))

    return declare


def found(checks) -> dict:
    return {name: (good, text, advice) for name, good, text, advice in checks}


def test_versions_against_the_declared_ranges(needs):
    needs("numpy>=1", "pydantic<1", "nosuchthing>=2", 'pywin32; sys_platform == "win32"', 'x; extra == "gpu"')
    checks = found(doctor.check_machine())
    assert checks["numpy"][0] is True and "(tested with >=1)" in checks["numpy"][1]
    assert checks["pydantic"][0] is None and checks["pydantic"][2].endswith('pip install "pydantic<1"')
    assert checks["nosuchthing"] == (False, "not installed", 'pip install "nosuchthing>=2"')
    assert "pywin32" not in checks and "x" not in checks


@pytest.mark.parametrize("version", ["0.9.6", "0.8", None])
def test_what_only_instructors_need_is_told_and_never_fails(needs, monkeypatch, version):
    def installed(name):
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    needs('nbgrader<0.10,>=0.9.6; extra == "instructor"', 'nbgrader; extra == "test"', 'x; extra == "test"')
    monkeypatch.setattr(metadata, "version", installed)
    rows = [row for row in doctor.check_machine() if row[0] in ("nbgrader", "x")]
    [(_, good, text, advice)] = rows
    fetch = 'pip install "nbgrader<0.10,>=0.9.6"'
    assert (good, text, advice) == {
        "0.9.6": (True, "0.9.6 (tested with <0.10,>=0.9.6)", ""),
        "0.8": (None, "0.8 (tested with <0.10,>=0.9.6)", f"if something fails: {fetch}"),
        None: (None, "not installed", f"only for `release` and `grade --gradebook`: {fetch}"),
    }[version]


def test_the_package_itself_missing(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert found(doctor.check_machine())["visdial-lab"][2] == "in the course folder: pip install -e ."


def test_small_machines(needs, monkeypatch):
    needs()
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2e9))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=5e8))
    checks = found(doctor.check_machine())
    assert checks["memory"][:2] == (False, "2 GB") and checks["disk"][0] is False


def test_libraries_that_are_missing_stop_nothing(needs, monkeypatch):
    needs("torch>=2")
    for name in ("torch", "psutil", "jupyter_client.kernelspec"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    checks = found(doctor.check_machine())
    assert checks["gpu"][0] is None and "memory" not in checks
    assert "no Jupyter kernel python3: pip install ipykernel" in checks["profile scenes"][2]


def test_where_it_runs_is_said(needs, monkeypatch):
    needs()
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20261101")
    assert found(doctor.check_machine())["python"][1].endswith(", Colab")


def test_the_sandbox_that_grading_would_use(needs, monkeypatch):
    needs()
    monkeypatch.setattr("visdial_lab.grading.sandbox.choose", lambda: "bubblewrap")
    assert found(doctor.check_machine())["grading"] == (True, "sandbox bubblewrap holds here", "")

    def nothing_works():
        raise UserError("no sandbox works here (unshare: it leaks). Install bubblewrap or podman. --unsafe …")

    monkeypatch.setattr("visdial_lab.grading.sandbox.choose", nothing_works)
    good, text, advice = found(doctor.check_machine())["grading"]
    assert good is None and text == "no sandbox works here (unshare: it leaks)." and "bubblewrap" in advice


def test_without_namespaces_nothing_fails(needs, monkeypatch):
    needs()
    monkeypatch.setitem(sys.modules, "visdial_lab.grading.sandbox", None)
    assert found(doctor.check_machine())["grading"][:2] == (None, "no sandbox on this system")


def test_the_command_prints_every_check_and_its_code_says_whether_the_course_runs(
    needs, scenes, monkeypatch, capsys, tmp_path
):
    needs()
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 0
    assert "[ok]   profile scenes: runs here" in capsys.readouterr().out
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tmp_path))  # a course without data
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    out = capsys.readouterr().out
    assert (
        stop.value.code == 1
        and "[fail] profile scenes" in out
        and "→ data is missing: fetch the course" in out
    )
    assert "data is missing: visdial-lab download --split train --split val --root data/visdial" in out


def test_a_profile_of_ones_own_is_checked_too(needs, scenes, tmp_path, capsys):
    needs()
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"name: mine\nmodel: {{name: {tmp_path / 'none'}}}\n")
    with pytest.raises(SystemExit):
        main(["doctor", "--config", str(mine)])
    assert f"→ model is missing: no config.json in {tmp_path / 'none'}" in capsys.readouterr().out
