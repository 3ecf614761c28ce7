"""The notebooks where they are used: opened in JupyterLab, run small, every control moved.

Needs Chromium and its driver (Debian: ``apt install chromium chromium-driver``) and selenium.
Screenshots go to ``build/browser/``: laptop width, light and dark, and 200 % zoom.
"""

import functools
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from notebook_files import CHROMIUM, DRIVER
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from test_notebook_runs import TINY

from spdlib import execution, paths

pytestmark = pytest.mark.slow

PICTURES = paths.root() / "build" / "browser"
LAPTOP = 1366, 900  # pixels; at 200 % zoom half as many of CSS
PATIENCE = 300  # seconds, on a busy machine
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    f"--window-size={LAPTOP[0]},{LAPTOP[1]}",
)  # fmt: skip
CONTROLS = '[role="slider"], select, input[type="checkbox"], input[type="number"], button'
# An explorer is the outermost box of widgets in an output. From a key or a click to the time
# when the picture that follows is decoded:
WATCH = """
const box = arguments[0];
window.moved = window.shown = null;
window.watched?.disconnect();
const moved = () => { window.moved ??= performance.now(); };
for (const kind of ['keydown', 'pointerdown', 'click']) box.addEventListener(kind, moved, true);
window.watched = new MutationObserver(changes => {
  for (const {target} of changes)
    if (target.tagName === 'IMG')  // one that the next replaces meanwhile is not decoded
      target.decode().then(() => { window.shown = performance.now(); }, () => {});
});
window.watched.observe(box, {subtree: true, attributes: true, attributeFilter: ['src']});
"""
# A control's value; null for a button, which has none.
VALUE = """
const one = arguments[0], handles = '[role="slider"]';
const sliders = one.matches(handles) ? [one] : [...one.querySelectorAll(handles)];
if (sliders.length) return sliders.map(slider => slider.getAttribute('aria-valuenow')).join();
if (one.type === 'checkbox') return `${one.checked}`;
return one.tagName === 'BUTTON' ? null : one.value;
"""
STATE = """
const panel = window.jupyterapp.shell.currentWidget;
const model = panel.content.model, kernel = panel.sessionContext.session?.kernel;
const code = [...model.cells].filter(cell => cell.type === 'code' && cell.sharedModel.source);
return {dirty: model.dirty, kernel: kernel?.status, cells: code.length,
        ran: code.filter(cell => cell.executionCount).length};
"""
# What a reader would see of a fault. A widget without a model says so in its place.
FAULTS = """
const kinds = ['application/vnd.jupyter.error', 'application/vnd.jupyter.stderr'];
const found = kinds.flatMap(kind => [...document.querySelectorAll(`[data-mime-type="${kind}"]`)]);
const words = /Error displaying widget|model not found|Loading widget/i;
const output = [...document.querySelectorAll('.jp-OutputArea-output')];
return [...found, ...output.filter(one => words.test(one.innerText))].map(one => one.textContent);
"""


@pytest.fixture(scope="module")
def webdriver():
    reason = "no browser to test in: apt install chromium chromium-driver, pip install selenium"
    if not (CHROMIUM and DRIVER):
        pytest.skip(reason)
    return pytest.importorskip("selenium.webdriver", reason=reason)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab on copies of the notebooks, as published and with small settings."""
    folder = tmp_path_factory.mktemp("lab")
    version = "{}.{}.{}".format(*sys.version_info)
    for path in execution.find():
        nb = nbformat.read(path, as_version=4)
        small = parameterize_notebook(load_notebook_node(str(path)), TINY[path.stem])
        # The kernel's version is part of a notebook; a reader with another sees it renewed.
        nb.metadata["language_info"]["version"] = version
        nbformat.write(nb, folder / path.name)
        nbformat.write(small, folder / f"small_{path.name}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--expose-app-in-browser",
        f"--notebook-dir={folder}",
    ]  # fmt: skip
    python = os.pathsep.join(filter(None, [str(paths.root()), os.environ.get("PYTHONPATH")]))
    own = {
        "SPDLIB_RUNS": str(folder / "runs"),
        "PYTHONPATH": python,
        "JUPYTER_CONFIG_DIR": str(folder / "none"),
    }
    with (
        open(folder / "lab.log", "w") as log,
        subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log) as server,
    ):
        address = f"http://127.0.0.1:{port}"
        until(lambda: urllib.request.urlopen(f"{address}/api", timeout=5), "JupyterLab to start")
        yield address, folder
        server.terminate()


@pytest.fixture(scope="module")
def browser(webdriver, lab):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    for option in OPTIONS:
        options.add_argument(option)
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.get(f"{lab[0]}/lab?reset")
    driver.set_script_timeout(PATIENCE)
    until(lambda: driver.execute_script("return !!window.jupyterapp"), "the page")
    driver.execute_async_script("window.jupyterapp.restored.then(arguments[0])")
    driver.execute_script("document.body.append(document.createElement('style'))")
    driver.execute_script("document.body.lastChild.textContent = '.Toastify {display: none}'")
    PICTURES.mkdir(parents=True, exist_ok=True)
    yield driver
    driver.quit()


def until(holds, what, seconds=PATIENCE):
    """Waits until something holds, and returns what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds} s")


def command(browser, name, **options):
    """Runs a command of JupyterLab's and does not wait for it."""
    browser.execute_script("window.jupyterapp.commands.execute(...arguments)", name, options)


def state(browser):
    return browser.execute_script(STATE)


@contextmanager
def opened(browser, name):
    """Opens a notebook, and closes it without saving, and its kernel, whatever comes between."""
    command(browser, "docmanager:open", path=name)
    ready = "return window.jupyterapp.shell.currentWidget?.context?.path === arguments[0]"
    until(lambda: browser.execute_script(ready, name), f"{name} to open")
    until(lambda: state(browser)["kernel"] == "idle", f"the kernel of {name}")
    try:
        yield
    finally:
        browser.execute_async_script(
            "const panel = window.jupyterapp.shell.currentWidget, done = arguments[0];"
            "panel.content.model.dirty = false;"
            "panel.sessionContext.shutdown().finally(() => { panel.dispose(); done(); })"
        )


def shot(browser, name):
    browser.save_screenshot(str(PICTURES / f"{name}.png"))


def faults(browser):
    logged = [line["message"] for line in browser.get_log("browser")]
    return [*browser.execute_script(FAULTS), *(text for text in logged if "favicon" not in text)]


def moved(browser, box, control, act):
    """Milliseconds until a new picture stands in an explorer; None if the control has not moved."""
    browser.execute_script(WATCH, box)
    before = browser.execute_script(VALUE, control)
    act()
    pause = "return window.shown && window.shown - window.moved"
    try:
        if before is not None:  # at its end a control does not move
            until(lambda: browser.execute_script(VALUE, control) != before, "a new value", 1)
        return until(lambda: browser.execute_script(pause), "a new picture", 15)
    except TimeoutError:
        return None


def keys(control):
    """Keys that move a control, and others if it stands at its end already."""
    from selenium.webdriver.common.keys import Keys

    if control.tag_name == "button" or control.get_attribute("type") == "checkbox":
        return [Keys.SPACE]
    if control.tag_name == "input":
        return [Keys.ARROW_UP + Keys.ENTER, Keys.ARROW_DOWN + Keys.ENTER]
    if control.tag_name == "select":
        return [Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.END, Keys.HOME]
    return [Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.END, Keys.HOME]


def can_move(control):
    """Whether a control has another value: a menu of one category, at small settings, has none."""
    if control.tag_name == "select":
        return len(control.find_elements("css selector", "option")) > 1
    low, high = (control.get_attribute(f"aria-value{end}") for end in ("min", "max"))
    return low is None or low != high


def click(browser, control, side):
    """Clicks beside a control's middle, by a part of its width."""
    from selenium.webdriver import ActionChains

    beside = round(side * control.size["width"])
    ActionChains(browser).move_to_element_with_offset(control, beside, 0).click().perform()


def label(control):
    """What stands beside a control."""
    own = control.get_attribute("aria-label") or control.text.split("\n")[0]
    line = control.find_elements("xpath", "ancestor::*[contains(@class, 'widget-inline-hbox')][1]")
    return line[0].text.split("\n")[0] if line else own


def move_everything(browser, box):
    """Moves each control by the keyboard, then by the mouse where a click does it.

    Returns milliseconds to the new picture by control, and the controls that moved nothing.
    """
    pauses, still = {}, []
    for control in filter(can_move, box.find_elements("css selector", CONTROLS)):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", control)
        tries = (functools.partial(control.send_keys, key) for key in keys(control))
        found = next(filter(None, (moved(browser, box, control, act) for act in tries)), None)
        if found is None:
            still.append(label(control))
        else:
            pauses[label(control)] = found
    for control in box.find_elements("css selector", '.noUi-target, input[type="checkbox"]'):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", control)
        tries = (functools.partial(click, browser, control, side) for side in (-0.3, 0.3, 0))
        if next(filter(None, (moved(browser, box, control, act) for act in tries)), None) is None:
            still.append(f"{label(control)}, clicked")
    return pauses, still


NAMES = [path.name for path in execution.find()]


def test_opening_leaves_a_notebook_as_it_is(browser, lab):
    for name in NAMES:
        before = (lab[1] / name).read_bytes()
        with opened(browser, name):
            time.sleep(1)  # the kernel's answer may still change something
            assert not state(browser)["dirty"], name
            assert (lab[1] / name).read_bytes() == before
            assert not faults(browser)
            shot(browser, f"{Path(name).stem}_opened")


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_its_picture(name, browser, lab, capsys):
    with opened(browser, f"small_{name}"):
        follow(name, browser, capsys)


def follow(name, browser, capsys):
    """Runs the notebook that is open, and moves the controls of its explorers."""
    started = time.monotonic()
    command(browser, "notebook:run-all-cells")
    until(lambda: (now := state(browser))["ran"] == now["cells"] or faults(browser), f"{name} run")
    until(lambda: state(browser)["kernel"] == "idle", f"the kernel of {name}")
    ran = time.monotonic() - started
    assert not faults(browser)
    boxes = until(
        lambda: browser.find_elements("css selector", ".jp-OutputArea-output > .widget-vbox"),
        f"{name}: an explorer",
    )
    stem = Path(name).stem
    for box in boxes:
        browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", box)
        time.sleep(0.5)
        shot(browser, f"{stem}_light")
        pauses, still = move_everything(browser, box)
        assert not still, f"{name}: these change nothing"
        assert not faults(browser)
        looks(browser, box, stem)
        median = statistics.median(pauses.values())
        each = ", ".join(f"{text} {pause:.0f}" for text, pause in pauses.items())
        with capsys.disabled():
            print(f"\n{stem}: run in {ran:.0f} s; key to picture {median:.0f} ms: {each}")


def looks(browser, box, stem):
    """Screenshots of an explorer in the dark and at 200 % zoom."""
    start = "arguments[0].scrollIntoView({block: 'start'})"
    command(browser, "apputils:change-theme", theme="JupyterLab Dark")
    time.sleep(1)
    browser.execute_script(start, box)
    shot(browser, f"{stem}_dark")
    command(browser, "apputils:change-theme", theme="JupyterLab Light")
    half = {"width": LAPTOP[0] // 2, "height": LAPTOP[1] // 2}
    zoomed = half | {"deviceScaleFactor": 2, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", zoomed)
    time.sleep(1)
    browser.execute_script(start, box)
    shot(browser, f"{stem}_zoom")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
