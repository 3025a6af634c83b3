"""Training on a Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'facetpu[ray]'")

from ray.cluster_utils import Cluster  # noqa: E402
from test_ray import ROOT, add_node  # noqa: E402
from test_several_devices import assert_same_curve, checkpoint, finish, start, start_workers, training  # noqa: E402

from facetpu.config import TrainConfig  # noqa: E402
from facetpu.errors import FacetpuError  # noqa: E402
