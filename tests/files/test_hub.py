"""Hub names through a cache made here, and a hub on this machine that may answer anything."""

import pytest
from huggingface_hub import constants

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.hub import matching, resolve
from tests.file_server import file_server

SELECT = matching("config.json", "*.safetensors")


def test_local_paths_are_themselves(tmp_path):
    (tmp_path / "a.pth").write_text("")
    assert resolve(tmp_path, SELECT) == tmp_path
    assert resolve(str(tmp_path / "a.pth"), SELECT) == tmp_path / "a.pth"


@pytest.mark.parametrize("name", ["model", "./owner/name", "/owner/name", "a/b/c", "owner/name/", "../x", ""])
def test_what_is_no_hub_name_is_a_missing_path(name, hub):
    with pytest.raises(InterLCMError, match="no such file or folder"):
        resolve(f"{name}-absent", SELECT)


def test_only_the_files_selected_are_downloaded(hub):
    files = {"config.json": b"{}", "unet/a.safetensors": b"a", "unet/b.safetensors": b"b"}
    hub.add_repository("owner/name", {**files, "unet.bin": b"c", "README.md": b""})
    folder = resolve("owner/name", SELECT)
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")} == files
    # They are in the cache, also for who has no connection.
    hub.files.clear()
    assert resolve("owner/name", SELECT) == folder


def test_nothing_is_downloaded_from_a_repository_that_lacks_a_file(hub):
    hub.add_repository("owner/name", {"unet.bin": b""})
    with pytest.raises(InterLCMError, match=r"owner/name: no config\.json, no \*\.safetensors$"):
        resolve("owner/name", SELECT)
    assert len(hub.log) == 1


def gate(hub):
    hub.files["/api/models/owner/name"] = hub.files["/api/models/owner/other"] = b""
    hub.headers["X-Error-Code"] = "GatedRepo"
    hub.codes = [403] * 2


def fall_silent(hub):
    hub.files.clear()


@pytest.mark.parametrize("trouble", [gate, fall_silent])
def test_the_cache_serves_without_a_connection(hub, cache, trouble):
    trouble(hub)
    snapshot = cache("owner/name", "config.json", "unet.safetensors")
    assert resolve("owner/name", SELECT) == snapshot
    cache("owner/other", "config.json")
    with pytest.raises(InterLCMError, match=r"owner/other: .*; no \*\.safetensors in the hub's cache$"):
        resolve("owner/other", SELECT)


def test_revisions(cache):
    snapshot = cache("owner/name", "config.json", "unet.safetensors", revision="v1")
    assert resolve("owner/name", SELECT, revision="v1") == snapshot
    with pytest.raises(InterLCMError):
        resolve("owner/name", SELECT)


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (403, "GatedRepo", "accept the terms"),
        (404, "RepoNotFound", "no such repository"),
        (401, None, "no such repository"),
        (404, "RevisionNotFound", "no such revision"),
        (503, None, "the hub answers 503 Service Unavailable; try again later"),
    ],
)
def test_each_refusal_says_what_to_do(hub, code, kind, advice):
    hub.files["/api/models/owner/name/revision/refs%2Fpr%2F1"] = b""
    hub.codes, hub.headers["X-Error-Code"] = [code], kind
    with pytest.raises(InterLCMError, match=rf"^owner/name: .*{advice}.*; the hub's cache doesn't hold it$"):
        resolve("owner/name", SELECT, revision="refs/pr/1")


def test_no_connection(hub, monkeypatch):
    with file_server() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.url)
    with pytest.raises(InterLCMError, match=r"owner/name: the download failed, as .*; check the connection"):
        resolve("owner/name", SELECT)


def test_the_library_itself_offline(cache):
    with pytest.raises(InterLCMError, match=r"HF_HUB_OFFLINE forbids .* unset it"):
        resolve("owner/name", SELECT)
    snapshot = cache("owner/name", "config.json", "vae/unet.safetensors")
    assert resolve("owner/name", SELECT) == snapshot


@pytest.mark.parametrize("name", ["a--b/c", "foo/bar.", "owner/" + 97 * "x"])
def test_names_that_no_hub_repository_can_have(name):
    with pytest.raises(InterLCMError, match="no hub name"):
        resolve(name, matching("*"))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nX-Error-Code: GatedRepo\r\nContent-Length: 0\r\n\r\n", "accept the terms"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "the download failed"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://a/b\r\nX-Repo-Commit: 7\r\nETag: a\r\n\r\n", "the download failed"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", "the download failed"),
        (b"\0", "the download failed"),
    ],
)
def test_a_hub_that_lists_a_file_and_does_not_give_it(hub, reply, message):
    hub.add_repository("owner/name", {"config.json": b"{}", "a.safetensors": b"a"})
    hub.scripts["/owner/name/resolve/main/config.json"] = lambda send: send(reply)
    with pytest.raises(InterLCMError, match=f"^owner/name: .*{message}"):
        resolve("owner/name", SELECT)
