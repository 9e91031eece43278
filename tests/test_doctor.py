"""The doctor tells gaps and what to do about each."""

from importlib import metadata

import pytest

from visdial_lab import doctor
from visdial_lab.cli import main


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


def test_the_package_itself_missing(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert found(doctor.check_machine())["visdial-lab"][2] == "in the course folder: pip install -e ."


def test_small_machines(needs, monkeypatch):
    needs()
    monkeypatch.setattr(doctor, "_memory", lambda: 2.0)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("", (), {"free": 5e8}))
    checks = found(doctor.check_machine())
    assert checks["memory"][:2] == (False, "2 GB") and checks["disk"][0] is False


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
    assert stop.value.code == 1 and "[fail] profile scenes" in out and "→ data is missing" in out
