"""The Dockerfile: what can be said of it without building it."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGE = re.compile(r"^FROM (\S+)(?: AS (\w+))?$", re.MULTILINE)


@pytest.fixture(scope="module")
def stages():
    """Each stage's name, what it starts from, and its instructions."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    parts = STAGE.split(text)
    assert not parts[0].strip()
    bases, names, bodies = parts[1::3], parts[2::3], parts[3::3]
    return {
        name or "default": (base, [line.split(maxsplit=1) for line in body.splitlines() if line])
        for base, name, body in zip(bases, names, bodies, strict=True)
    }


def test_the_stages_are_those_that_are_named(stages):
    assert list(stages) == ["train", "wheel", "cpu", "cuda", "default"]
    assert {base for base, _ in stages.values()} == {"python:3.12-slim", "cpu"}
    known = {"ARG", "COPY", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "RUN", "USER", "VOLUME", "WORKDIR"}
    assert {instruction for _, body in stages.values() for instruction, _ in body} <= known
    named = {name for path in ("Dockerfile", "docs/pods.md", "docs/demo.md") for name in _targets(ROOT / path)}
    assert named == {"train", "cpu", "cuda"}


def _targets(path: Path) -> list[str]:
    return re.findall(r"(?:--target |target `)(\w+)", path.read_text())


def test_extras_exist(stages):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for _, body in stages.values():
        for instruction, rest in body:
            for found in re.findall(r"EXTRAS=([\w,]+)|\[([\w,]+)\]\"", rest):
                assert set("".join(found).split(",")) <= set(extras), (instruction, rest)
    for found in re.findall(r"EXTRAS=([\w,]+)|EXTRAS: ([\w,]+)", (ROOT / "Dockerfile").read_text()):
        assert set("".join(found).strip(",").split(",")) <= set(extras)


def test_what_is_copied_is_there_and_not_ignored(stages):
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = [rest.split() for _, body in stages.values() for instruction, rest in body if instruction == "COPY"]
    sources = {name for words in copied if not words[0].startswith("--from") for name in words[:-1]}
    # The wheel is built of these, and of what pyproject.toml names besides.
    assert {"pyproject.toml", "README.md", "LICENSE", "interlcm_jax"} <= sources
    for name in sources:
        assert (ROOT / name).exists()
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)
    for words in copied:
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages


def test_the_command_runs_as_a_user_and_keeps_its_files_in_a_volume(stages):
    _, body = stages["cpu"]
    settings = dict(body)
    assert settings["USER"] == "interlcm"
    assert settings["ENTRYPOINT"] == '["interlcm"]'
    [volume] = [rest for instruction, rest in body if instruction == "VOLUME"]
    assert set(re.findall(r"=(/\w+)", settings["ENV"])) == {volume}
    # The last word on who runs it, as installing takes root.
    assert [rest for instruction, rest in stages["cuda"][1] if instruction == "USER"][-1] == "interlcm"
