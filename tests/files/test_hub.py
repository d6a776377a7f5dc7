"""Hub names through a cache made here, and a hub that answers from this file."""

import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.hub import matching, resolve

SELECT = matching("config.json", "*.safetensors")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder as the hub's library lays it out; the function adds a repository with some files."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def add(name, *files, revision="main"):
        repository = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / ("0" * 40)
        for file in files:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file).write_text(file)
        (repository / "refs").mkdir()
        (repository / "refs" / revision).write_text("0" * 40)
        return snapshot

    return add


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub: lists `files` and `downloads` what is asked for, or raises the `error` it is given."""
    state = SimpleNamespace(files=[], error=None, downloads=[])

    def list_repo_files(self, name, *, revision=None):
        if state.error:
            raise state.error
        return state.files

    real = huggingface_hub.snapshot_download

    def snapshot_download(name, *, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            return real(name, revision=revision, allow_patterns=allow_patterns, local_files_only=True)
        state.downloads += [f for f in state.files if any(fnmatch.fnmatch(f, p) for p in allow_patterns)]
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return state


def http_error(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "first line\nsecond line")
    return error


def test_local_paths_are_themselves(tmp_path):
    (tmp_path / "a.pth").write_text("")
    assert resolve(tmp_path, SELECT) == tmp_path
    assert resolve(str(tmp_path / "a.pth"), SELECT) == tmp_path / "a.pth"


@pytest.mark.parametrize("name", ["model", "./owner/name", "/owner/name", "a/b/c", "owner/name/", "../x", ""])
def test_what_is_no_hub_name_is_a_missing_path(name, hub):
    with pytest.raises(InterLCMError, match="no such file or folder"):
        resolve(f"{name}-absent", SELECT)


def test_only_the_files_selected_are_downloaded(hub, tmp_path):
    hub.files = ["config.json", "unet.safetensors", "unet.bin", "README.md"]
    assert resolve("owner/name", SELECT) == tmp_path / "snapshot"
    assert sorted(hub.downloads) == ["config.json", "unet.safetensors"]


def test_nothing_is_downloaded_from_a_repository_that_lacks_a_file(hub):
    hub.files = ["unet.bin"]
    with pytest.raises(InterLCMError, match=r"owner/name: no config\.json, no \*\.safetensors$"):
        resolve("owner/name", SELECT)
    assert hub.downloads == []


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("off"), ConnectionError("down"), GatedRepoError])
def test_the_cache_serves_without_a_connection(hub, cache, error):
    hub.error = error if isinstance(error, Exception) else http_error(error)
    snapshot = cache("owner/name", "config.json", "unet.safetensors")
    assert resolve("owner/name", SELECT) == snapshot
    cache("owner/other", "config.json")
    with pytest.raises(InterLCMError, match=r"owner/other: .*; no \*\.safetensors in the hub's cache$"):
        resolve("owner/other", SELECT)


def test_revisions(hub, cache):
    hub.error = ConnectionError("down")
    snapshot = cache("owner/name", "config.json", "unet.safetensors", revision="v1")
    assert resolve("owner/name", SELECT, revision="v1") == snapshot
    with pytest.raises(InterLCMError):
        resolve("owner/name", SELECT)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OfflineModeIsEnabled("off"), "unset it"),
        (ConnectionError("first line\nsecond line"), r"ConnectionError: first line\); check the connection"),
        (http_error(huggingface_hub.errors.HTTPError), "check the connection"),
        (http_error(GatedRepoError), "accept the terms"),
        (http_error(RepositoryNotFoundError), "no such repository"),
        (http_error(RevisionNotFoundError), "no such revision"),
    ],
)
def test_each_failure_says_what_to_do(hub, cache, error, advice):
    hub.error = error
    with pytest.raises(InterLCMError, match=advice) as raised:
        resolve("owner/name", SELECT)
    assert str(raised.value).startswith("owner/name: ")
    assert raised.value.__cause__ is error


def test_the_library_itself_offline(cache):
    with pytest.raises(InterLCMError, match="HF_HUB_OFFLINE forbids"):
        resolve("owner/name", SELECT)
    snapshot = cache("owner/name", "config.json", "vae/unet.safetensors")
    assert resolve("owner/name", SELECT) == snapshot


@pytest.mark.parametrize("name", ["a--b/c", "foo/bar.", "owner/" + 97 * "x"])
def test_names_that_no_hub_repository_can_have(name):
    with pytest.raises(InterLCMError, match="no hub name"):
        resolve(name, matching("*"))
