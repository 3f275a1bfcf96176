"""minillmlib.ray where Ray is not installed."""

from __future__ import annotations

import sys

import pytest

from minillmlib import Bulk, ChatNode, GeneratorInfo, MissingExtraError
from minillmlib.ray import map_complete, report


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = Bulk(GeneratorInfo.openai("m"), prompt=ChatNode.root().add_user("{n}"))
    for call in (lambda: map_complete(None, job), lambda: report(job)):
        with pytest.raises(MissingExtraError, match=r"pip install 'minillmlib\[ray\]'"):
            call()
