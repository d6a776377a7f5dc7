"""A hub on this machine, and the cache of the hub's library."""

import pytest
from huggingface_hub import constants

from interlcm_jax.files import fetch as fetch_module
from tests.file_server import DATA, file_server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder as the hub's library lays it out; the function adds a repository with some files."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def add(name, *files, revision="main"):
        repository = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / ("0" * 40)
        for file in files:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file).write_text(file)
        (repository / "refs").mkdir()
        (repository / "refs" / revision).write_text("0" * 40)
        return snapshot

    return add


@pytest.fixture
def hub(monkeypatch, cache):
    """A hub without repositories; tests add some."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with file_server() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        served.headers["X-Repo-Commit"] = "0" * 40
        yield served


@pytest.fixture
def server(monkeypatch):
    """A server with one file."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch_module, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(fetch_module, "LEAST", 1)
    with file_server() as served:
        served.files["/file"] = DATA
        yield served


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "weights.pth"


@pytest.fixture
def once(monkeypatch):
    """The first lost connection ends a download, as Ctrl-C or the end of the process would."""
    monkeypatch.setattr(fetch_module, "RETRIES", 0)
