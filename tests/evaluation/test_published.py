"""Published numbers: shown only where they compare, and whole."""

from interlcm_jax.evaluation.published import Published, published, tables
from interlcm_jax.evaluation.testsets import TEST_SETS


def test_published_numbers_stand_beside_ours_only_where_they_compare():
    metrics = ["psnr", "ssim", "lpips"]
    found = published("celeba-test", 3000, metrics)
    assert found.rows["PMRF"] == {"psnr": 26.37, "ssim": 0.7073, "lpips": 0.347}
    assert "torch-fidelity" in " ".join(found.notes)
    assert published("celeba-test", 3000, ["psnr-matched"]).rows == {}
    assert published(None, 3000, metrics) == Published()
    fewer = published("celeba-test", 2999, metrics)
    assert fewer.rows == {}
    assert "3000" in fewer.notes[0]


def test_published_tables_are_whole():
    for table in tables():
        assert table["source"]
        assert table["test_set"] not in TEST_SETS or table["count"] == TEST_SETS[table["test_set"]].count
        for column in table["columns"]:
            assert (column["metric"] is None) == bool(column.get("why"))
        for values in table["rows"].values():
            assert len(values) == len(table["columns"])
            assert all(isinstance(value, float) for value in values)
