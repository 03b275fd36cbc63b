"""The page as Chromium shows and plays it, with no network.

Skipped where there is no Chromium, unless ``NEED_CHROMIUM`` is set (``make test-report``).
"""

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import time

import pytest
from matplotlib.image import imread

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which needs what containers lack; only our own pages are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)
PATIENCE = 30.0
"""Seconds after which a page that does not answer has failed."""

UNTIL = """
const until = async (test) => {
  const end = performance.now() + 8000;
  while (!test() && performance.now() < end) await new Promise((done) => setTimeout(done, 20));
};
const [mixture, source] = document.querySelectorAll("audio");
"""
PLAY = """
const player = document.querySelectorAll("audio")[%d];
player.play();
await until(() => player.currentTime >= 0.05);
player.pause();
return [player.currentSrc.slice(0, 10), player.currentTime];
"""
JUMP = """
const player = document.querySelectorAll("audio")[%d], missed = [];
for (const place of [1.5, 0.2, 1.9, 0.6, 1.2, 0]) {
  player.play();
  await until(() => player.currentTime > 0);
  player.pause();
  player.currentTime = place;
  await until(() => !player.seeking);
  if (player.error || player.seeking || Math.abs(player.currentTime - place) > 0.01)
    missed.push(place);
}
return missed;
"""
TAKE_OVER = """
mixture.play();
await until(() => mixture.currentTime > 0);
mixture.currentTime = 1;
await until(() => !mixture.seeking);
source.play();
await until(() => mixture.paused && source.currentTime > 0.1);
const found = [mixture.paused, source.paused, source.currentTime];
source.pause();
return found;
"""
CLICK = """
const frame = source.closest("article").querySelector(".frame");
const box = frame.getBoundingClientRect();
source.currentTime = 0;
frame.dispatchEvent(new MouseEvent("click", { clientX: box.left + box.width / 2 }));
await until(() => source.currentTime >= 0.9 && !source.seeking);
source.pause();
await until(() => !frame.querySelector(".playhead").hidden);
return [source.currentTime, parseFloat(frame.querySelector(".playhead").style.left)];
"""


class Browser:
    """Chromium without a window, spoken to by its DevTools protocol over two pipes."""

    def __init__(self, program, profile):
        # Chromium reads from 3 and writes to 4.
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        launch = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", launch, program, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.out, self.into = ours_out, ours_in
        os.set_blocking(self.into, False)
        self.numbers = itertools.count(1)
        self.buffer, self.events = b"", []

    def call(self, method, session=None, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def next(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            try:
                self.buffer += os.read(self.into, 2**20)
            except BlockingIOError:
                assert time.monotonic() < end, "Chromium does not answer"
                time.sleep(0.01)
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def close(self):
        os.close(self.out)  # it ends when nobody speaks to it
        self.process.wait(PATIENCE)
        os.close(self.into)


class Tab:
    """A page that is open, and everything that it asked for or complained about."""

    def __init__(self, browser, path):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        self.call("Page.navigate", url=path.as_uri())
        while not self.said("Page.loadEventFired"):
            browser.events.append(browser.next())

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def said(self, method):
        return [
            event["params"]
            for event in self.browser.events
            if event.get("method") == method and event.get("sessionId") == self.session
        ]

    def run(self, code):
        done = self.call(
            "Runtime.evaluate",
            expression=code,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def play(self, code):
        """Run what plays, with this tab in front: others' timers are slowed down."""
        self.call("Page.bringToFront")
        return self.run(f"(async () => {{ {UNTIL} {code} }})()")

    def look(self, width, scheme):
        """Return the page's picture, (height, width, 3), and how far it is scrolled wide."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        pixels = imread(io.BytesIO(base64.b64decode(shot["data"])))[:, :, :3]
        return pixels, self.run("document.documentElement.scrollWidth")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        reason = f"no Chromium: none of {', '.join(NAMES)} is installed"
        if os.environ.get("NEED_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def tab(browser, any_kind):
    return Tab(browser, any_kind.folder / "report.html")


@pytest.fixture(scope="module")
def audio_tab(browser, audio):
    return Tab(browser, audio.folder / "report.html")


def test_it_loads_without_network_and_complaint(tab):
    asked = {request["request"]["url"] for request in tab.said("Network.requestWillBeSent")}
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert tab.said("Network.loadingFailed") == []
    assert tab.said("Log.entryAdded") == []
    assert tab.said("Runtime.exceptionThrown") == []
    assert tab.run("[...document.images].every((image) => image.naturalWidth > 0)")


def test_names_run_nothing(tab, any_kind):
    assert "harmed" not in tab.run("document.title")
    assert tab.said("Page.javascriptDialogOpening") == []
    assert tab.run("document.title").startswith(any_kind.result["input"]["name"] or "EEG")


def test_a_script_that_is_not_ours_is_refused(audio_tab):
    code = "const s = document.createElement('script'); s.text = 'window.harmed = 1'; "
    audio_tab.run(f"{code} document.body.append(s)")
    assert audio_tab.run("window.harmed") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_no_blank_page_and_fits_its_width(tab, width, scheme):
    pixels, scrolled = tab.look(width, scheme)
    assert scrolled <= width
    assert pixels.shape[1] == width
    assert pixels.std() > 0.05
    assert (pixels[2, 2].mean() > 0.5) == (scheme == "light")
    # Every stretch of two screens shows something.
    for top in range(0, len(pixels) - 900, 900):
        assert pixels[top : top + 900].std() > 0.01


@pytest.mark.parametrize("width", [390, 700, 900, 1280])
def test_no_check_stands_alone_below_a_row_of_others(tab, width):
    tab.look(width, "light")
    boxes = json.loads(
        tab.run(
            "JSON.stringify([...document.querySelectorAll('.check')].map(c => "
            "[c.getBoundingClientRect().top, c.getBoundingClientRect().width]))"
        )
    )
    rows = [[w for top, w in boxes if top == row] for row in sorted({top for top, _ in boxes})]
    full = max(map(sum, rows))
    assert len(boxes) >= 4
    assert all(len(row) == len(rows[0]) or sum(row) > 0.95 * full for row in rows)


def test_the_accessibility_tree_has_headings_and_landmarks(tab, any_kind):
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    found = {
        (node.get("role", {}).get("value"), node.get("name", {}).get("value"))
        for node in nodes
        if not node["ignored"]
    }
    assert ("heading", f"Verdict: {any_kind.result['verdict']}") in found
    assert ("heading", "Sources") in found
    assert ("navigation", "On this page") in found
    roles = [role for role, _ in found]
    assert {"main", "banner", "contentinfo", "table", "article"} <= set(roles)
    assert all(name for role, name in found if role in ("image", "link", "heading", "Audio"))


def test_the_keyboard_gets_to_the_sources(audio_tab):
    for kind in ("keyDown", "keyUp"):
        audio_tab.call(
            "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
        )
    assert audio_tab.run("document.activeElement.textContent") == "Skip to the sources"
    assert audio_tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert audio_tab.run("document.activeElement.getBoundingClientRect().left") >= 0


class TestPlayers:
    @pytest.mark.parametrize("which", range(4))
    def test_play_the_files_beside_the_page(self, audio_tab, which):
        address, seconds = audio_tab.play(PLAY % which)
        assert address == ("data:audio" if which == 0 else "file:///" + address[8:])
        assert seconds >= 0.05

    def test_play_their_copies_where_the_page_is_alone(self, browser, audio, tmp_path):
        shutil.copy(audio.folder / "report.html", tmp_path)
        tab = Tab(browser, tmp_path / "report.html")
        for which in range(4):
            address, seconds = tab.play(PLAY % which)
            assert address == "data:audio"
            assert seconds >= 0.05

    @pytest.mark.parametrize("which", [0, 1])
    def test_jump_to_where_they_are_sent(self, audio_tab, which):
        assert audio_tab.play(JUMP % which) == []

    def test_one_takes_over_from_another_at_its_place(self, audio_tab):
        was_stopped, is_stopped, seconds = audio_tab.play(TAKE_OVER)
        assert was_stopped
        assert not is_stopped
        assert seconds >= 0.9

    def test_a_click_on_a_picture_goes_there(self, audio_tab):
        seconds, left = audio_tab.play(CLICK)
        assert 0.9 <= seconds < 1.6  # of 2
        assert 45 <= left < 80


def test_it_prints(tab):
    pages = base64.b64decode(tab.call("Page.printToPDF", printBackground=False)["data"])
    assert pages.startswith(b"%PDF")
    assert len(pages) > 10_000
