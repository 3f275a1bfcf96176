"""A server for the command line, one for each file of tests."""

from __future__ import annotations

import pytest
from cli_program import serving


@pytest.fixture(scope="module")
def running():
    with serving() as service:
        yield service


@pytest.fixture
def service(running):
    """The server, which has forgotten what earlier tests asked."""
    return running.forget()
