"""What opens a store is shown nowhere: not in errors and their causes, results, logs, warnings or saved files."""

from __future__ import annotations

import logging
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.cli import main
from lrgls_dask.errors import StoreFailure, scrubbed, without_secrets
from lrgls_dask.rows import patience
from support.buckets import s3_bucket

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(60), RNG.normal(size=(60, 2))])
Y = X @ RNG.normal(size=(3, 3)) + RNG.normal(size=(60, 3))
KEY, SECRET = "PLANTEDKEYOFTHEBUCKET", "planted-secret-of-the-bucket"
SIGNED = f"X-Amz-Credential={KEY}&X-Amz-Signature={SECRET}"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
BUSY = DENIED.replace(b"AccessDenied", b"ServiceUnavailable")


class Answering(BaseHTTPRequestHandler):
    """All requests alike: with a status, or not in time."""

    def _answer(self) -> None:
        status: int = self.server.status  # type: ignore[attr-defined]
        time.sleep(0 if status else 3)
        self.send_response(status or 500)
        body = b"" if self.command == "HEAD" else DENIED if status == 403 else BUSY
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def server(status: int) -> Iterator[str]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    found.daemon_threads = True
    found.status = status  # type: ignore[attr-defined]
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAITS", (0.0,))


def shown(error: BaseException) -> str:
    """All that a reader gets to see of an error."""
    return "".join([str(error), repr(error), repr(error.args), *traceback.format_exception(error)])


def refused(call: Callable[[], object]) -> BaseException:
    with pytest.raises((OSError, ValueError)) as found:
        call()
    text = shown(found.value)
    assert SECRET not in text and KEY not in text, text
    return found.value


def options_for(endpoint: str) -> dict[str, Any]:
    quick = {"connect_timeout": 0.5, "read_timeout": 0.5, "retries": {"max_attempts": 0}}
    return {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": endpoint}, "config_kwargs": quick}


def everything_on(url: str, options: dict[str, Any] | None, signed: str = "") -> list[BaseException]:
    """What is said to all that can be done with a store, which fails."""
    system = System.from_arrays(Y, X)
    fit = LowRankGLS(0).fit(system).result_
    given: dict[str, Any] = {} if options is None else {"storage_options": options}
    calls: list[Callable[[], object]] = [
        lambda: System.from_zarr(f"{url}/s.zarr{signed}", **given),
        lambda: Fit.from_zarr(f"{url}/f.zarr{signed}", **given),
        lambda: CompressedSystem.from_zarr(f"{url}/c.zarr{signed}", **given),
        lambda: system.to_zarr(f"{url}/s.zarr{signed}", **given),
        lambda: system.append_to_zarr(f"{url}/s.zarr{signed}", **given),
        lambda: fit.to_zarr(f"{url}/f.zarr{signed}", **given),
        lambda: LowRankGLS(0, checkpoint=f"{url}/kept{signed}").fit(system),
    ]
    return [refused(call) for call in calls]


def test_a_bucket_that_denies_is_named_without_what_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="in the extra `test`")
    with server(403) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        said = everything_on("s3://bucket", options_for(endpoint))
        assert {type(each) for each in said} == {StoreFailure}
        assert all("s3://bucket/" in str(each) and "PermissionError" in str(each) for each in said)
        everything_on(f"s3://{KEY}:{SECRET}@bucket", options_for(endpoint), f"?{SIGNED}")  # which is none of a bucket


def test_a_presigned_url_that_denies(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp", reason="in the extra `test`")
    with server(403) as endpoint:
        place = endpoint.replace("http://", f"http://{KEY}:{SECRET}@")
        said = refused(lambda: System.from_zarr(f"{place}/s.zarr?{SIGNED}"))
        assert isinstance(said, StoreFailure) and "/s.zarr: its metadata could not" in str(said)
        main(["summary", f"{place}/f.zarr?{SIGNED}"])
        printed = "".join(capsys.readouterr())
        assert "/f.zarr" in printed and SECRET not in printed and KEY not in printed


@pytest.mark.slow
@pytest.mark.parametrize("status", [503, 0], ids=["busy", "no answer"])
def test_a_bucket_that_fails_for_long(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(status) as endpoint:
        for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET)):
            monkeypatch.setenv(f"AWS_{name}", value)
        # fsspec keeps file systems by what they are given, and the environment is not among that
        monkeypatch.setitem(fsspec.config.conf, "s3", {"client_kwargs": {"endpoint_url": endpoint}})
        monkeypatch.setattr(pytest.importorskip("s3fs").S3FileSystem, "retries", 1)
        said = everything_on("s3://bucket", options_for(endpoint))
        assert {type(each) for each in said} == {StoreFailure}


@pytest.mark.slow
def test_what_a_bucket_holds_and_what_is_said_of_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with s3_bucket("secrets") as given, caplog.at_level(logging.INFO, logger="lrgls_dask"):
        endpoint = given["client_kwargs"]["endpoint_url"]
        options: dict[str, Any] = given | {"key": KEY, "secret": SECRET}
        for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET)):
            monkeypatch.setenv(f"AWS_{name}", value)
        # fsspec keeps file systems by what they are given, and the environment is not among that
        monkeypatch.setitem(fsspec.config.conf, "s3", {"client_kwargs": {"endpoint_url": endpoint}})
        missing = refused(lambda: System.from_zarr("s3://no-such-bucket/s.zarr", storage_options=options))
        assert isinstance(missing, FileNotFoundError)
        refused(lambda: System.from_arrays(Y, X).to_zarr("s3://no-such-bucket/s.zarr", storage_options=options))
        said: list[str] = []
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            System.from_arrays(Y, X).to_zarr("s3://secrets/s.zarr", row_chunk=20, storage_options=options)
            system = System.from_zarr("s3://secrets/s.zarr", storage_options=options)
            model = LowRankGLS(1, max_sweeps=2, engine="stream", checkpoint="s3://secrets/kept")
            fit = model.fit(system).result_
            fit.to_zarr("s3://secrets/f.zarr", storage_options=options)
            fit.report(tmp_path / "fit.html")
            log = tmp_path / "fit.log"
            command = [
                "fit",
                "s3://secrets/s.zarr",
                "--rank",
                "0",
                "--out",
                str(tmp_path / "o.zarr"),
                "--log",
                str(log),
            ]
            assert main(command) == 0
            assert main(command) == 1  # which is there
        said += [str(each.message) for each in warned] + [record.getMessage() for record in caplog.records]
        said += [repr(each) for each in (system, fit, model, model.plan(system))] + [str(fit.summary())]
        said += [repr(vars(record)) for record in caplog.records if record.name == "lrgls_dask"]
        said += [log.read_text(), (tmp_path / "fit.html").read_text(), *capsys.readouterr()]
        said += [path.read_bytes().decode("latin1") for path in (tmp_path / "o.zarr").rglob("*") if path.is_file()]
        import s3fs

        bucket = s3fs.S3FileSystem(**options)
        bucket.invalidate_cache()
        said += [bucket.cat_file(name).decode("latin1") for name in bucket.find("secrets")]
        assert len(said) > 50
        assert not [text for text in said if SECRET in text or KEY in text]


def test_what_is_left_out() -> None:
    assert without_secrets(f"simplecache::s3://{KEY}:{SECRET}@bucket/a b?{SIGNED}") == "simplecache::s3://bucket/a b"
    said = scrubbed(
        f"403, url='https://u:{SECRET}@host/a/zarr.json?{SIGNED}' for {KEY}:{SECRET}@bucket, token={SECRET}"
    )
    assert said == "403, url='https://host/a/zarr.json' for bucket, token=..."
