"""Fits straight from and to a bucket: saved, sealed, checkpointed by one at a time, and no credential anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.data.alone import alone_at
from support.buckets import s3_bucket

SECRET = "planted-secret-of-the-bucket"
RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(60), RNG.normal(size=(60, 2))])
Y = X @ RNG.normal(size=(3, 3)) + RNG.normal(size=(60, 3))


@pytest.mark.slow
def test_a_fit_from_and_to_a_bucket(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with s3_bucket("fits") as given:
        options: dict[str, Any] = given | {"secret": SECRET}
        monkeypatch.setenv("AWS_ENDPOINT_URL", given["client_kwargs"]["endpoint_url"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        System.from_arrays(Y, X).to_zarr("s3://fits/s.zarr", row_chunk=20, storage_options=options)
        system = System.from_zarr("s3://fits/s.zarr", storage_options=options)
        model = LowRankGLS(0, engine="stream", checkpoint="s3://fits/kept")
        with alone_at("s3://fits/kept", str), pytest.raises(OSError, match="in use by another fit") as refused:
            model.fit(system)
        fit = model.fit(system).result_
        assert np.array_equal(fit.params, LowRankGLS(0, engine="stream").fit(system).result_.params)
        fit.to_zarr("s3://fits/f.zarr", storage_options=options)
        again = Fit.from_zarr("s3://fits/f.zarr", storage_options=options)
        assert np.array_equal(again.params, fit.params)
        import s3fs

        bucket = s3fs.S3FileSystem(**options)
        bucket.invalidate_cache()
        files = bucket.find("fits")
        assert not [name for name in files if "kept" in name]
        said = [repr(system), repr(fit), str(fit.summary()), str(refused.value), repr(model.get_params())]
        said += [repr(bucket.cat_file(name)) for name in files] + list(capsys.readouterr())
        assert len(files) > 20 and not [text for text in said if SECRET in text]
