"""A run's folder is held by one training at a time."""

import subprocess
import sys

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.run_folder import claimed

HOLDS = """
import sys, time
from pathlib import Path
from interlcm_jax.training.run_folder import claimed
with claimed(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_second_training_is_refused_at_its_start(tmp_path):
    with claimed(tmp_path / "run"):
        with pytest.raises(InterLCMError, match="run: another training is at work"), claimed(tmp_path / "run"):
            pass
        with claimed(tmp_path / "other"):
            pass
    with claimed(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InterLCMError, match="file/run: the run's folder can't be made"), claimed(tmp_path / "file/run"):
        pass


@pytest.mark.long
def test_the_lock_ends_with_its_process(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    with pytest.raises(InterLCMError, match="another training is at work"), claimed(tmp_path):
        pass
    process.kill()
    process.communicate()
    with claimed(tmp_path):
        pass
