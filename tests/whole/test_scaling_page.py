"""The page on 1, 10 and 100 TB: its blocks print what stands beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "deploy" / "SCALING.md"


@pytest.mark.filterwarnings("ignore::lrgls_dask.UnwrittenChunks")
def test_every_block_prints_what_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(pairs) == 2
    names: dict[str, Any] = {}
    for code, expected in pairs:
        exec(compile(code, str(PAGE), "exec"), names)
        assert capsys.readouterr().out == expected
