"""A JupyterLab server and a headless Chrome for the browser tests: start, open, run, look, save.

The system's own Chrome or Chromium is driven, through Playwright; the browsers that Playwright would fetch
are not needed.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nbformat

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "tests" / "browser-artifacts"  # screenshots, to be looked at; not in git
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# JupyterLab as it comes, but for what would make two runs differ: no news from the network, no question
# about them, and every cell in the page, also those that are scrolled out of sight.
_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
_STATE = """() => {
    const panel = jupyterapp.shell.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
    if (!panel?.content?.widgets || !kernel) return null;
    const cells = panel.content.widgets.map(cell => cell.model).filter(model => model.type === "code");
    const outputs = cells.flatMap(cell => cell.outputs.toJSON());
    return {status: kernel.status, left: cells.filter(cell => cell.executionCount === null).length,
            failed: outputs.some(output => output.output_type === "error")};
}"""


def find_chrome() -> str | None:
    """The browser of this machine, or None."""
    found = (shutil.which(name) for name in _NAMES)
    return next(filter(None, found), None) or next(filter(os.path.exists, _PLACES), None)


@contextlib.contextmanager
def chrome() -> Iterator:
    """A headless browser; every page or context made from it is closed with it."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-dev-shm-usage"]  # what a container has neither rights nor room for
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chrome(), args=flags)
        yield browser
        browser.close()


@contextlib.contextmanager
def jupyter(course: Path, home: Path) -> Iterator[str]:
    """A JupyterLab server over the course folder, with a home of its own; gives its URL, "…/{}?token=…"."""
    for name, values in _SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex(16)
    environment = {name: value for name, value in os.environ.items() if name != "VISDIAL_LAB_ROOT"}
    environment |= {"HOME": str(home), "IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT)}
    environment |= {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "HF_HUB_OFFLINE": "1"}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={course}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/{{}}?token={token}"
            _wait_for(url.format("api/status"), server, home / "server.log")
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


def watch(page) -> list[str]:
    """A list that fills with what goes wrong in the page: errors in the console, exceptions, failed loads."""
    wrong: list[str] = []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"{request.url}: {request.failure}"))
    return wrong


def run_notebook(page, url: str, course: Path, name: str, seconds: int) -> nbformat.NotebookNode:
    """Open a notebook of the course as a student does, run all its cells from the menu, and save it.

    Returns the saved notebook and leaves a screenshot. It stops at the first error, as JupyterLab does.
    """
    clear(course / name)
    page.goto(url.format(f"lab/tree/{name}") + "&reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.wait_for_function(f"() => ({_STATE})()?.status === 'idle'", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    done = f"() => {{ const now = ({_STATE})(); return now.status === 'idle' && (!now.left || now.failed) }}"
    try:
        page.wait_for_function(done, timeout=seconds * 1000, polling=200)
    finally:  # also of one that did not come to its end
        shoot(page, Path(name).stem)
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    return nbformat.read(course / name, as_version=4)


def clear(path: Path) -> None:
    """Remove outputs and counts: what is there afterwards comes from this run."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def end_kernels(url: str) -> None:
    """Give back the memory of the notebooks that are through."""
    for session in httpx.get(url.format("api/sessions")).json():
        httpx.delete(url.format(f"api/sessions/{session['id']}"), timeout=30)


def shoot(page, name: str) -> Path:
    """Keep a screenshot of the whole page, or of the whole notebook, which scrolls inside it."""
    ARTIFACTS.mkdir(exist_ok=True)
    inner = page.locator(".jp-WindowedPanel-outer:visible")
    if inner.count():
        before = page.viewport_size
        height = inner.first.evaluate("element => element.scrollHeight") + 200
        page.set_viewport_size({"width": before["width"], "height": min(height, 16_000)})
        inner.first.evaluate("element => element.scrollTo(0, 0)")
        page.wait_for_timeout(500)  # the page lays itself out anew
        page.locator(".jp-NotebookPanel:visible").screenshot(path=ARTIFACTS / f"{name}.png")
        page.set_viewport_size(before)
    else:
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
    return ARTIFACTS / f"{name}.png"
