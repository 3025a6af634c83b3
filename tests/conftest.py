"""Fixtures that several tests share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are noisy: a slow example is no failure.
settings.register_profile("facetpu", deadline=None)
settings.load_profile("facetpu")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real photos and models, where FACETPU_TEST_DATA names one."""
    folder = os.environ.get("FACETPU_TEST_DATA")
    if not folder:
        pytest.skip("FACETPU_TEST_DATA is not set: no real photos or models here")
    root = Path(folder)
    assert root.is_dir(), f"FACETPU_TEST_DATA={folder} is no folder"
    return root.resolve()


@pytest.fixture(autouse=True)
def _fresh_logger() -> None:
    """A command sets facetpu's logger up for its terminal; each test must find it as it is at import."""
    logger = logging.getLogger("facetpu")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
