"""What a Hugging Face hub repository holds, and its files; the hub may be anybody's, since HF_ENDPOINT names it."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.files.fetch import Progress, fetch
from interlcm_jax.files.http import LostError, get
from interlcm_jax.files.hub import Select

_LARGEST = 2**25  # bytes of a listing
# By the hub's codes of errors.
ADVICE = {
    "GatedRepo": "its owner gates it; accept the terms on its page, then log in with `hf auth login`",
    "RepoNotFound": (
        "no such path here and no such repository on the hub (if it is private, log in with `hf auth login`)"
    ),
    "RevisionNotFound": "the repository has no such revision",
}


@dataclasses.dataclass(frozen=True)
class Repository:
    """A version of a hub repository.

    Attributes:
        name: like "owner/name".
        commit: the version.
        files: `size` in bytes and `sha256` by their names, None where the hub doesn't tell; no name leads elsewhere.
        license: if it states one.
    """

    name: str
    commit: str
    files: Mapping[str, Mapping[str, int | str | None]]
    license: str | None

    def choose(self, select: Select) -> Sequence[str]:
        """The files that `select` wants.

        Raises:
            InterLCMError: one that it needs isn't there.
        """
        try:
            return select(self.files)
        except InterLCMError as error:
            raise InterLCMError(f"{self.name}: {error}") from error

    def fetch(self, select: Select, folder: Path, progress: Progress) -> None:
        """Downloads the files that `select` wants; what an earlier download left in the folder is gone on with.

        Raises:
            InterLCMError: as `choose` and `fetch.fetch`.
        """
        for file in self.choose(select):
            url = huggingface_hub.hf_hub_url(self.name, file, revision=self.commit)
            label = f"{Path(self.name).name}/{file}"
            options = {**self.files[file], "headers": build_hf_headers(), "label": label, "progress": progress}
            fetch(url, folder / file, **options)


def list_repository(name: str, revision: str | None = None) -> Repository:
    """Asks the hub what a repository holds; HF_ENDPOINT names another hub, as for all of the hub's library.

    Args:
        name: like "owner/name".
        revision: a branch, tag or commit; None is the newest version.

    Raises:
        InterLCMError: there is no such repository or revision, the hub can't be reached or sends something else.
    """
    if constants.HF_HUB_OFFLINE:
        raise InterLCMError(f"{name}: HF_HUB_OFFLINE forbids to download it; unset it, or give a local folder")
    version = f"/revision/{quote(revision, safe='')}" if revision else ""
    text = _read(name, f"{constants.ENDPOINT}/api/models/{name}{version}?blobs=true")
    try:
        info = json.loads(text)
        files = {}
        for entry in info["siblings"]:
            if _belongs(entry["rfilename"]):
                size, large = entry.get("size"), entry.get("lfs")
                sha256 = re.fullmatch("[0-9a-f]{64}", large["sha256"])[0] if large else None
                files[entry["rfilename"]] = {"size": size if size is None else int(size), "sha256": sha256}
        license = (info.get("cardData") or {}).get("license")
        commit = re.fullmatch("[0-9a-f]{40}", info["sha"])[0]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _no_listing(name) from error
    return Repository(name, commit, files, printable(license) if isinstance(license, str) else None)


def _no_listing(name: str) -> InterLCMError:
    return InterLCMError(
        f"{name}: {constants.ENDPOINT} answers with something else than a list of files; does the network want a "
        "login, or does HF_ENDPOINT name another server than a hub?"
    )


def _read(name: str, url: str) -> bytes:
    data = bytearray()
    try:
        with get(url, build_hf_headers()) as (response, body):
            status, reason = response.status_code, response.reason_phrase
            if status != 200:
                code = response.headers.get("X-Error-Code", "RepoNotFound" if status in (401, 404) else "")
                raise InterLCMError(
                    f"{name}: {ADVICE.get(code, f'the hub answers {status} {reason}; try again later')}"
                )
            for part in body:
                data += part
                if len(data) > _LARGEST:
                    raise _no_listing(name)
    except LostError as error:
        raise InterLCMError(f"{name}: the download failed, as {error}; check the connection") from error
    return bytes(data)


def _belongs(file: str) -> bool:
    """Whether a name stays inside the repository's folder, and steers no terminal."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in file and printable(file) == file
