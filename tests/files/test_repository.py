"""What a hub that may be anybody's says of a repository."""

import gzip
import json
import time

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files import http
from interlcm_jax.files.hub import matching
from interlcm_jax.files.repository import list_repository
from tests.file_server import file_server

FILE = {"rfilename": "config.json", "size": 2}
LFS = {"rfilename": "a.safetensors", "size": 2, "lfs": {"sha256": "0" * 64}}
INFO = {"sha": "0" * 40, "siblings": [FILE, LFS]}


@pytest.mark.parametrize(
    "listing",
    [
        b"<html>Log in to this network</html>",
        b"",
        b"\xff\xfe",
        b"[" * 10**5,
        b'{"sha": ' + b"9" * 5000 + b"}",
        b" " * (2**25 + 1),
        *(json.dumps(info).encode() for info in (None, 7, [], {}, "a", {"sha": "0" * 40, "siblings": None})),
        *(
            json.dumps({**INFO, **wrong}).encode()
            for wrong in (
                {"sha": None},
                {"sha": "../../../other/name/resolve/main"},
                {"siblings": 7},
                {"siblings": [None]},
                {"siblings": [{**FILE, "size": "two"}]},
                {"siblings": [{**FILE, "size": float("inf")}]},
                {"siblings": [{**FILE, "size": []}]},
                {"siblings": [{**FILE, "rfilename": 7}]},
                {"siblings": [{**LFS, "lfs": {"sha256": 7}}]},
                {"siblings": [{**LFS, "lfs": "a"}]},
                {"siblings": [{**LFS, "lfs": {"sha256": "a"}}]},
                {"cardData": "a"},
            )
        ),
    ],
)
def test_a_listing_that_is_none_gives_one_message(hub, listing):
    hub.files["/api/models/owner/name"] = listing
    with pytest.raises(InterLCMError, match=r"owner/name: http.* answers with something else than a list of files"):
        list_repository("owner/name")


def test_a_listing_needs_no_more_than_names(hub):
    hub.files["/api/models/owner/name"] = json.dumps({"sha": "0" * 40, "siblings": [{"rfilename": "a"}]}).encode()
    repository = list_repository("owner/name")
    assert (list(repository.files), repository.commit, repository.license) == (["a"], "0" * 40, None)


def test_a_compressed_listing_is_refused(hub):
    # A few kilobytes can hide any number.
    hub.files["/api/models/owner/name"] = gzip.compress(bytes(10**7))
    hub.headers["Content-Encoding"] = "gzip"
    with pytest.raises(InterLCMError, match="the server compresses"):
        list_repository("owner/name")


def test_a_hub_that_goes_silent(hub, monkeypatch):
    monkeypatch.setattr(http, "DEADLINE", 0.2)
    hub.scripts["/api/models/owner/name"] = lambda send: time.sleep(1)
    with pytest.raises(InterLCMError, match=r"less than 262144 bytes came in 0\.2 s"):
        list_repository("owner/name")


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../a", "a\\..\\a", "\x1b]0;a\7", "\ud800"])
def test_names_that_leave_their_folder_or_steer_a_terminal_are_not_there(hub, name):
    hub.add_repository("owner/name", {"config.json": b"{}", name: b"a"})
    assert list(list_repository("owner/name").files) == ["config.json"]


@pytest.mark.parametrize(
    ("stated", "license"), [("mit\x1b[31m\u202e", r"mit\x1b[31m\u202e"), (["mit"], None), (None, None)]
)
def test_a_license_cannot_steer_a_terminal(hub, stated, license):
    hub.add_repository("owner/name", {"config.json": b"{}"}, license=stated)
    assert list_repository("owner/name").license == license


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add_repository("owner/name", {"a": b"a"})
    with file_server() as elsewhere:
        elsewhere.files["/a"] = b"a"
        repository = list_repository("owner/name")
        hub.files[f"/owner/name/resolve/{repository.commit}/a"] = f"{elsewhere.url}/a"
        repository.fetch(matching("a"), tmp_path, lambda label, count, total: None)
        assert (set(hub.tokens), set(elsewhere.tokens)) == ({"Bearer hf_secret"}, {None})
    assert (tmp_path / "a").read_bytes() == b"a"
