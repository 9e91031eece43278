"""The course as a student has it on the screen: notebooks run in JupyterLab, widgets move, pages fit a phone.

One server and one browser for all. Screenshots are left in tests/browser-artifacts, to be looked at.
"""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from lab_browser import ROOT, chrome, end_kernels, find_chrome, jupyter, run_notebook, shoot, watch

from visdial_lab.grading.feedback import write_pages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chrome() is None,
        reason="SKIPPED: no Chrome or Chromium on this machine, so nothing was tried in a browser. "
        "Install one: apt install chromium, brew install --cask chromium, or google.com/chrome",
    ),
]

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("ps*/ps*.ipynb"))[:1]  # one: the grader's tests run all of them
# Notebooks 03 to 05 with little data: every cell runs, but in a minute.
QUICK = {
    "name": "quick",
    "training": {"max_steps": 4, "logging_steps": 2, "warmup_steps": 0},
    "data": {"num_val_dialogs": 8},
    "evaluation": {"examples": 2, "bootstrap_samples": 100},
}
CONTROLS = {"01": 4, "02": 2, "03": 2, "04": 6, "05": 4}  # what a student can move in a notebook, at least
WIDGET = "application/vnd.jupyter.widget-view+json"
WINDOWS = {
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    "laptop": {"viewport": {"width": 1280, "height": 800}},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}
BADGE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"/>'  # tests ask nothing of the network
)


@pytest.fixture(scope="module")
def browser():
    with chrome() as browser:
        yield browser


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of what a student has, in a folder whose name needs quoting."""
    course = tmp_path_factory.mktemp("lab") / "my course é"
    for name in ("notebooks", "data", "solutions", "assignments"):
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("visdial", ".ipynb_checkpoints", "__pycache__")
            shutil.copytree(ROOT / name, course / name, ignore=unwanted)
    (course / "quick.yaml").write_text(json.dumps(QUICK))
    return course


@pytest.fixture(scope="module")
def lab(course, tmp_path_factory):
    with jupyter(course, tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def page(browser, lab):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    for place in ("https://colab.research.google.com/assets/*", "https://kaggle.com/static/images/*"):
        context.route(place, lambda route: route.fulfill(body=BADGE, content_type="image/svg+xml"))
    yield context.new_page()
    context.close()
    end_kernels(lab)


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def check_run(notebook) -> None:
    """Every code cell has run, in order, without an error or a warning on standard error."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for output in outputs(notebook):
        assert output.output_type != "error", "\n".join(output.traceback)
        assert output.get("name") != "stderr", output.text
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def check_rendered(page, notebook) -> None:
    """What the kernel sent is on the screen: pictures with pixels in them, widgets that are alive."""
    shown = [output.get("data", {}) for output in outputs(notebook)]
    pictures = page.locator(".jp-OutputArea-output img")
    assert pictures.count() >= sum("image/png" in data for data in shown)
    assert pictures.evaluate_all("images => images.every(image => image.naturalWidth > 0)")
    widgets = sum(WIDGET in data for data in shown)
    assert page.locator(".jp-OutputArea-output > .jupyter-widgets").count() >= widgets
    assert page.get_by_text("Error displaying widget").count() == 0
    assert page.get_by_text("Loading widget...").count() == 0
    html = sum("text/html" in data and WIDGET not in data for data in shown)  # a widget's is its stand-in
    assert page.locator(".jp-RenderedHTMLCommon.jp-OutputArea-output").count() >= html


def operate(page) -> int:
    """Move every slider, tick every box, press every button, choose in every list, type into every field;
    returns how many there were.

    Each of them has to change something else in its output than itself.
    """
    kinds = ".noUi-handle, select, .widget-text input, .widget-checkbox input, .widget-button"
    controls = page.locator(f".jp-OutputArea-output :is({kinds})")
    for place in range(controls.count()):
        control = controls.nth(place)
        output = control.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')][1]")
        seen = "element => [...element.querySelectorAll('.widget-html, img')].map(e => e.outerHTML).join()"
        before = output.evaluate(seen)
        control.focus()
        kind = control.evaluate("element => element.type || element.getAttribute('role')")
        if kind == "text":
            control.fill("is there a dog?")
        if kind == "slider":
            last = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
            control.press("ArrowLeft" if last else "ArrowRight")
        else:
            keys = {"text": "Enter", "checkbox": "Space", "submit": "Enter", "button": "Enter"}
            control.press(keys.get(kind, "ArrowDown"))
        changed = f"([element, before]) => ({seen})(element) !== before"
        page.wait_for_function(changed, arg=[output.element_handle(), before], timeout=60_000)
    return controls.count()


def chat(page, question: str) -> None:
    """Ask both models in the play cell of notebook 04: each of them answers."""
    field = page.locator(".widget-text input")
    field.fill(question)
    field.press("Enter")
    for name in ("before", "after"):
        own = page.get_by_role("group", name=f"conversation with {name}").filter(has_text=question)
        answer = own.last.locator("span").last
        answer.wait_for(timeout=30_000)
        assert answer.inner_text().strip() not in ("", question)
    page.wait_for_function("() => document.querySelector('.widget-text input').value === ''")


def parameters(path: Path, **values: str) -> None:
    """Change the notebook's first cell as a student would."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in values.items():
        lines = [
            f'{name}: str = "{value}"' if line.startswith(name) else line for line in cell.source.split("\n")
        ]
        cell.source = "\n".join(lines)
    nbformat.write(notebook, path)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_jupyterlab(page, lab, course, name):
    """In the order of the course: each finds what those before it have left."""
    wrong, path = watch(page), Path("notebooks") / f"{name}.ipynb"
    if name[:2] in ("03", "04", "05"):
        parameters(course / path, PROFILE=str(course / "quick.yaml"), OUTPUT="runs/scenes")
    notebook = run_notebook(page, lab, course, str(path), seconds=1500)
    check_run(notebook)
    check_rendered(page, notebook)
    controls = operate(page)
    assert controls >= CONTROLS.get(name[:2], 0)
    if name.startswith("04"):
        chat(page, "how many people are there")
        chat(page, "and what color is the sky")
    if controls:
        shoot(page, f"{name}-operated")
    assert (course / "runs" / "scenes" / f"manifest_{name[:2]}.json").is_file()
    assert not wrong, wrong


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solved_problem_set_passes_its_checks_in_jupyterlab(page, lab, course, path):
    name = str(path.relative_to(ROOT))
    notebook = run_notebook(page, lab, course, name, seconds=300)
    check_run(notebook)
    assert any(cell.source.startswith("check(") for cell in notebook.cells)


@pytest.fixture(scope="module")
def pages(course):
    """The report and the evaluation page of the run that the notebooks have made."""
    from visdial_lab.evaluation import evaluate_run, read_truth, write_page
    from visdial_lab.files import read_json
    from visdial_lab.report import write_report
    from visdial_lab.visdial import VisDial

    run = course / "runs" / "scenes"
    if not (run / "manifest_05.json").is_file():
        pytest.fail("the notebooks have left no finished run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISDIAL_LAB_ROOT", str(course))
        patch.chdir(course)
        dialogs = VisDial.load("data/scenes", "val")[:8]
        entries = {name: read_json(run / f"predictions_{name}.json") for name in ("after", "before", "blind")}
        result = evaluate_run(dialogs, entries, None, read_truth(dialogs))
        write_page(run / "evaluation.html", "after", dialogs, entries["after"], result)
        return {"report": write_report(run), "evaluation": run / "evaluation.html"}


CONTRAST = """() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(
            v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(document.body);
    const [page, text] = [light(style.backgroundColor), light(style.color)];
    return {page, ratio: (Math.max(page, text) + 0.05) / (Math.min(page, text) + 0.05)};
}"""


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["report", "evaluation"])
def test_a_page_fits_its_window(browser, pages, name, window):
    check_page(browser, pages[name], name, window)


@pytest.mark.parametrize("window", WINDOWS)
def test_pages_of_grades_fit_their_window(browser, tmp_path, window):
    """What a stranger has written may be long, without a space, and full of tags."""
    long = "<script>alert(1)</script>" + "x" * 300
    test = {"exercise": "ps1.parse", "name": "the example", "goal": long, "points": 3.0, "earned": 0.0}
    test |= {"said": long, "detail": long}
    mark = {"id": "ps1-open", "points": 4.0, "answered": True, "mark": 3.0, "comment": long}
    result = {"student": long, "file": "ada", "assignment": "ps1", "problem": None, "rung": "bubblewrap"}
    result |= {"notes": [long], "earned": 5.0, "score": 4.5, "by_hand": 2.7, "max": 20.0, "days_late": 1}
    cell = {"cell": "ps1-parse-code", "type": "ValueError", "message": long, "line": 2}
    result |= {"tests": [test], "cells": [cell], "open": [mark]}
    pair = {"students": [long, "bob"], "exercises": ["ps1.parse"], "share": 0.9}
    write_pages(tmp_path, "ps1", [result], [pair])
    check_page(browser, tmp_path / "index.html", "grades", window)
    check_page(browser, tmp_path / "feedback" / "ada.html", "feedback", window)


def check_page(browser, path: Path, name: str, window: str) -> None:
    """Nothing is fetched, nothing sticks out, everything can be read; leaves a screenshot."""
    context = browser.new_context(**WINDOWS[window])
    page = context.new_page()
    wrong, asked = watch(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    shoot(page, f"{name}-{window}")
    assert not wrong, wrong
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    width = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], f"{width[0]} pixels in a window of {width[1]}"
    assert page.evaluate(
        "() => [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    seen = page.evaluate(CONTRAST)
    assert seen["ratio"] >= 7 and (seen["page"] < 0.1) == (window == "dark"), seen
    context.close()
