"""Fixtures that several tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
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
def _logger_as_before() -> Iterator[None]:
    """A command sets facetpu's logger up for its terminal; the next test must find it as it was."""
    logger = logging.getLogger("facetpu")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
