"""Changelog, citation, contributor's page: one version, and licences as the packages say them."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import visdial_lab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NOTES = r" \([^)]*\)|:[^|]*|, a program[^|]*"  # words beside a package's name


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def licence(package: str) -> str:
    """All that an installed package says about its licence, without the licence's full text."""
    about = metadata.metadata(package)
    parts = [about["License-Expression"], (about["License"] or "").partition("\n")[0][:60]]
    parts += [one for one in about.get_all("Classifier", []) if one.startswith("License ::")]
    return " ".join(part for part in parts if part)


def rows() -> list[tuple[str, set[str], set[str]]]:
    """(licence, packages of the course, optional packages) of the table."""
    table = CONTRIBUTING.partition("## Licences of dependencies")[2]
    found = re.findall(r"^\| ([A-Z][^|]*) \|([^|]*)\|([^|]*)\|$", table, re.M)
    split = [
        [
            {canonicalize_name(name.strip()) for name in re.sub(NOTES, "", cell).split(",")} - {""}
            for cell in cells
        ]
        for _, *cells in found
    ]
    return [(row[0], *sets) for row, sets in zip(found, split, strict=True)]


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## \[?(\d[^\s\]]*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert visdial_lab.__version__ == citation["version"] == released[0]
    assert PROJECT["dynamic"] == ["version"] and citation["license"] == PROJECT["license"]


def test_what_is_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    assert [author["name"] for author in citation["authors"]] == ["VisDial Lab developers"]
    words = " ".join(reference["title"] for reference in citation["references"])
    for name in ("Visual Dialog", "COCO", "Gemma 3", "QLoRA", "LoRA: Low-Rank"):
        assert name in words
    for reference in citation["references"]:
        assert reference["type"] and reference["authors"] and reference["url"].startswith("https://")


def test_every_dependency_has_a_licence():
    ours = names(PROJECT["dependencies"])
    extras = set().union(*map(names, PROJECT["optional-dependencies"].values())) - ours
    listed = [name for _, own, optional in rows() for name in (*own, *optional)]
    assert len(listed) == len(set(listed))
    assert set().union(*(own for _, own, _ in rows())) == ours
    assert set().union(*(optional for _, _, optional in rows())) == extras


def test_licences_are_what_the_packages_say():
    said_as = {"PSF": "Python Software Foundation", "Apache-2.0": "Apache", "GPL-2.0": "GPL-2.0"}
    for name, own, optional in rows():
        for package in sorted(own | optional):
            try:
                said = licence(package)
            except metadata.PackageNotFoundError:
                assert package not in own, package
                continue
            assert said_as.get(name, name.partition(" ")[0]) in said, f"{package}: {said}, not {name}"


def test_no_other_package_that_comes_along_asks_for_its_source_to_be_shared():
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    here = {canonicalize_name(found.name) for found in metadata.distributions()}
    asking = {}
    for package in map(canonicalize_name, pinned):
        if package in here and (kinds := re.findall(r"\b(?:A|L)?GPL|\bMPL", licence(package))):
            asking[package] = kinds[0]
    assert {name for name, kind in asking.items() if kind != "MPL"} <= {"codespell"}
    assert set(asking) <= {"codespell", "hypothesis", "orjson", "certifi", "fqdn", "tqdm"}
