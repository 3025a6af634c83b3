"""Fixtures that several tests share."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Machines are noisy: a slow example is no failure. A gate must say the same of the same commit each time;
# elsewhere every run looks at other examples.
settings.register_profile("facetpu", deadline=None, derandomize="CI" in os.environ)
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


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    """A network of one layer, which takes no time to build, that a config can name ``tiny``."""
    from facetpu.nets import classifier
    from facetpu.nets.layers import convolutions
    from facetpu.nets.tensorflow import slim, tf, v1

    def one_layer(images: Any, network: Any, is_training: bool) -> Any:
        with convolutions(network, is_training, tf.nn.relu, v1.glorot_uniform_initializer()):
            return slim.conv2d(images, 8, 8, stride=8, scope="Tiny")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifier.NETWORKS, "tiny", one_layer)
        patch.setattr(classifier, "QUANTIZABLE", (*classifier.QUANTIZABLE, "tiny"))
        yield


@pytest.fixture(scope="module")
def open_browser() -> Iterator[Callable[..., Any]]:
    """Starts a headless Chromium with more arguments, and closes what it started."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as driver:
        yield lambda *arguments: driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *arguments]
        )


@pytest.fixture(autouse=True)
def _fresh_logger() -> None:
    """A command sets facetpu's logger up for its terminal; each test must find it as it is at import."""
    logger = logging.getLogger("facetpu")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
