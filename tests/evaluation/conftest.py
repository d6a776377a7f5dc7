"""What the tests of report, page and sheets share: a set of pictures, and a report on two methods."""

import pytest

from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.compare import Subject, compare
from interlcm_jax.evaluation.pairs import images_by_name
from interlcm_jax.evaluation.protocols import find_protocol
from interlcm_jax.evaluation.published import Published
from interlcm_jax.evaluation.report import Report
from interlcm_jax.evaluation.weights import Library
from tests.evaluation.pictures import write_set

TWO = [METRICS["psnr"], METRICS["ssim"]]


@pytest.fixture(scope="session")
def report_folder(tmp_path_factory):
    report_folder = tmp_path_factory.mktemp("set")
    write_set(report_folder, 9)
    # Equal to its original: infinitely good.
    (report_folder / "restored" / "008.png").write_bytes((report_folder / "hq" / "008.png").read_bytes())
    (report_folder / "other" / "a").mkdir(parents=True)
    for file in (report_folder / "lq").iterdir():
        (report_folder / "other" / file.name).write_bytes(file.read_bytes())
    (report_folder / "other" / "000.png").write_bytes(b"<b>broken")
    return report_folder


@pytest.fixture(scope="session")
def report(report_folder):
    subjects = [
        Subject.of_folder("LQ", "lq", report_folder / "lq"),
        Subject.of_folder("one", "method", report_folder / "restored"),
        Subject.of_folder("<two>", "method", report_folder / "other"),
        Subject.of_folder("HQ", "hq", report_folder / "hq"),
    ]
    metrics = [*TWO, METRICS["lpips"]]
    comparison = compare(subjects, images_by_name(report_folder / "hq")[0], metrics, Library())
    peers = Published({"Peer": {"psnr": 21.5}}, 8, ("the table's source",), ())
    return Report(find_protocol("basicsr"), metrics, comparison, "hq", None, peers, {"seed": 3}, ["a note"])
