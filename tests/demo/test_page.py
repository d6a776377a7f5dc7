"""The page in a browser, as two visitors use it; and its programs' interface."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from interlcm_jax.imaging.io import read_image, write_image
from tests.demo.browser import CHROMIUM, Tab, chromium
from tests.miniature import miniature_model

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "docs" / "astronaut.jpg"
# What Python asks, without a proxy that this machine may have.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page of the miniature model; its address and its process."""
    folder = tmp_path_factory.mktemp("server")
    miniature_model().save_pretrained(folder / "model")
    command = [sys.executable, "-m", "interlcm_jax.cli.main", "demo", "--model", "model", "--port", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stderr=log)
    try:
        for _ in range(600):
            if found := re.search(r"http://[\d.:]+/", (folder / "log").read_text()):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield found[0], process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM, "Chromium is missing: apt-get install chromium"
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def ask(address: str, body: bytes | None = None, kind: str = "application/json") -> str:
    request = urllib.request.Request(address, body, {"Content-Type": kind} if body else {})
    with OPENER.open(request, timeout=120) as reply:
        return reply.read().decode()


def restore(server: str, photo: object, **options: object) -> tuple[str, dict]:
    """A call of the interface: how it ends, and what with."""
    body = {"photo": {"path": photo, "meta": {"_type": "gradio.FileData"}}, **options}
    event = json.loads(ask(f"{server}gradio_api/call/v2/restore", json.dumps(body).encode()))["event_id"]
    stream = ask(f"{server}gradio_api/call/restore/{event}")
    [(how, data)] = re.findall(r"event: (complete|error)\ndata: (.*)", stream)
    return how, json.loads(data)


def upload(server: str, file: Path) -> str:
    head = f'--X\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
    body = head.encode() + file.read_bytes() + b"\r\n--X--\r\n"
    return json.loads(ask(f"{server}gradio_api/upload", body, "multipart/form-data; boundary=X"))[0]


def test_a_visitor_uploads_chooses_restores_slides_and_downloads(server, browser, tmp_path):
    address, _ = server
    browser.requests.clear()
    tab = Tab(browser, address, tmp_path)
    group = np.concatenate([read_image(PHOTO)] * 2, axis=1)
    write_image(tmp_path / "group.png", group)
    (tmp_path / "broken.jpg").write_bytes(PHOTO.read_bytes()[:2000])
    tab.upload("#photos input[type=file]", tmp_path / "group.png", tmp_path / "broken.jpg")
    tab.wait("document.querySelectorAll('#faces input').length == 2")
    assert "broken.jpg: can't be read" in tab.wait("document.querySelector('#report textarea')?.value")
    assert "license" in tab.evaluate("document.body.innerText")
    tab.click("#faces label:last-of-type input").click("#restore")
    tab.wait("document.querySelector('#report textarea')?.value.includes('1 face restored')", 300)
    # Dragged to its left edge, the slider shows the result alone.
    tab.wait("document.querySelectorAll('#slider img').length == 2")
    position = "JSON.stringify(document.querySelector('#slider .outer').getBoundingClientRect())"
    line = json.loads(tab.wait(position))
    middle = line["x"] + line["width"] / 2, line["y"] + line["height"] / 2
    tab.drag(middle, (middle[0] - 150, middle[1]))
    assert json.loads(tab.evaluate(position))["x"] == pytest.approx(line["x"] - 150, abs=3)
    tab.click("#results a")
    result = tmp_path / "group_restored.png"
    for _ in range(100):
        if result.exists():
            break
        time.sleep(0.1)
    height, width = group.shape[:2]
    restored = cv2.resize(read_image(result), (width, height), interpolation=cv2.INTER_AREA).astype(int)
    changed = np.abs(restored - group).mean(axis=(0, 2))
    assert changed[: width // 2].mean() > 3 * changed[width // 2 :].mean()
    elsewhere = {one for one in browser.requests if not one.startswith((address, "data:", "blob:", "about:"))}
    assert browser.requests
    assert elsewhere == set()


def test_visitors_see_their_own_files_alone(server, browser, tmp_path):
    address, _ = server
    first, second = (Tab(browser, address, tmp_path) for _ in range(2))
    for tab, name in ((first, "first.png"), (second, "second.png")):
        write_image(tmp_path / name, read_image(PHOTO))
        tab.upload("#photos input[type=file]", tmp_path / name)
        tab.wait("!!document.querySelector('#pictures img')")
    for tab in (first, second):
        tab.click("#restore")
    for tab, own, other in ((first, "first", "second"), (second, "second", "first")):
        tab.wait("!!document.querySelector('#results a')", 300)
        page = tab.evaluate("document.body.outerHTML")
        assert f"{own}_restored.png" in page
        assert f"{other}_restored.png" not in page
        assert f"{other}.png" not in page


def test_programs_restore_and_are_told_what_is_wrong(server, tmp_path):
    address, _ = server
    photo = upload(address, PHOTO)
    how, [result] = restore(address, photo, seed=3)
    assert how == "complete"
    with OPENER.open(result["url"], timeout=60) as reply:
        (tmp_path / "result.png").write_bytes(reply.read())
    before, after = read_image(PHOTO), read_image(tmp_path / "result.png")
    assert after.shape[:2] == tuple(2 * side for side in before.shape[:2])
    for refused, options, message in (
        (photo, {"faces": "7"}, "there is no face 7"),
        (photo, {"fidelity": 3}, "greater than maximum"),
        (upload(address, ROOT / "pyproject.toml"), {}, "pyproject.toml: not an image"),
        # No file of this machine that wasn't uploaded, and none of another.
        (str(PHOTO), {}, "not uploaded"),
        ("https://example.org/photo.jpg", {}, "fetches nothing"),
    ):
        how, error = restore(address, refused, **options)
        assert how == "error"
        assert message in error["error"]
    for place in (f"file={PHOTO}", "file=https://example.org/photo.jpg", "proxy=https://example.hf.space/"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(f"{address}gradio_api/{place}")


def test_too_large_files_a_taken_port_and_the_end(server):
    address, process = server
    port = address.split(":")[-1].strip("/")
    command = [sys.executable, "-m", "interlcm_jax.cli.main", "demo", "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert second.returncode == 2
    assert f"127.0.0.1:{port} can't be listened on" in second.stderr
    storage = Path(upload(address, PHOTO)).parents[1]
    assert storage.name.startswith("interlcm-demo-")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert not storage.exists()
