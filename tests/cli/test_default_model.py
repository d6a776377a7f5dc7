"""The commands where no model is named, in process: which one they take, and what they say of it."""

import pytest

from interlcm_jax import InterLCM, default_model
from interlcm_jax.cli.main import main
from tests.cli.aligned_faces import answering, face

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of downloaded models, empty, and no small one either."""
    monkeypatch.setenv("INTERLCM_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(default_model, "SMALL", tmp_path / "small")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def restore(*arguments):
    return main(["restore", "--aligned", "--gray", "color", *map(str, arguments), "-o", "out"])


@pytest.fixture
def loaded(monkeypatch):
    """The folders that models are loaded from; restoring itself, which others test, takes no time."""
    answering(monkeypatch, lambda face: face)
    folders = []
    original = InterLCM.from_pretrained.__func__

    def from_pretrained(cls, folder, *arguments, **options):
        folders.append(folder)
        return original(cls, folder, *arguments, **options)

    monkeypatch.setattr(InterLCM, "from_pretrained", classmethod(from_pretrained))
    return folders


def test_the_downloaded_model_restores(model, models, loaded, tmp_path, capsys):
    (models / "restoration_3step").symlink_to(model)
    source = face(tmp_path / "a.png")
    assert restore(source) == 0
    line = f"model: restoration_3step ({models}), restoration at 64 x 64 px, 3 network calls; license: not stated\n"
    assert line in capsys.readouterr().err
    # Who names a model knows which one it is.
    assert restore(source, "--model", "restoration_3step") == 0
    assert "model:" not in capsys.readouterr().err
    assert loaded == [models / "restoration_3step"] * 2


def test_the_small_model_restores_and_names_the_full_one(model, models, loaded, tmp_path, capsys):
    default_model.SMALL.symlink_to(model)
    assert restore(face(tmp_path / "a.png")) == 0
    error = capsys.readouterr().err
    assert "model: the small one of the package, restoration at 64 x 64 px" in error
    assert "with interlcm download" in error
    assert loaded == [default_model.SMALL]


def test_from_pretrained_takes_it_too(model, models):
    (models / "restoration_3step").symlink_to(model)
    assert InterLCM.from_pretrained().config == InterLCM.from_pretrained("restoration_3step").config


@pytest.mark.parametrize(
    "command", [["restore", "a.png", "-o", "out"], ["compile", "-o", "out"], ["export", "-o", "out"]]
)
def test_no_model(models, tmp_path, capsys, command):
    face(tmp_path / "a.png")
    assert main(command) == 2
    assert "no model for restoration is there: get the released one with interlcm download" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tasks(model, models, tmp_path, capsys):
    (models / "restoration_3step").symlink_to(model)
    source = face(tmp_path / "a.png")
    assert restore(source, "--task", "inpainting") == 2
    assert "no model for inpainting is there" in capsys.readouterr().err
    # A model that is named has its task.
    with pytest.raises(SystemExit, match="2"):
        restore(source, "--task", "inpainting", "--model", model)


def test_the_default_model_is_compiled(model, models, loaded, monkeypatch, capsys):
    (models / "restoration_3step").symlink_to(model)
    # Lowering, which others test, would come next.
    monkeypatch.setattr("interlcm_jax.stablehlo_export.compile_model", interrupted)
    assert main(["compile", "-o", "out"]) == 130
    assert loaded == [models / "restoration_3step"]
    assert f"model: restoration_3step ({models})" in capsys.readouterr().err


def interrupted(*_, **__):
    raise KeyboardInterrupt
