"""The fixture of a bucket on this machine, for the rooms' conftest files."""

import pytest

from tests.bucket_server import bucket_server


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of the name "bucket", for gs:// and s3://; who asks it in vain gives up after a second."""
    pytest.importorskip("gcsfs")
    import fsspec

    with bucket_server() as served:
        for name, value in {**served.environment(), "INTERLCM_BUCKET_PATIENCE": "1"}.items():
            monkeypatch.setenv(name, value)
        yield served
        for scheme in ("gs", "gcs", "s3"):
            fsspec.get_filesystem_class(scheme).clear_instance_cache()
