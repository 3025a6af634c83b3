"""A Ray cluster: reaching it, its nodes, and what must be alike on all of them."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.util.client import ray as client

from .. import __version__
from ..errors import FacetpuError

log = logging.getLogger(__name__)

AUTO = "auto"
CLIENT_PORT, HEAD_PORT = 10001, 6379  # Ray's own, where an address names none
REACH_SECONDS = 5.0

# What the bytes of crops, records and embeddings depend on. Ray compares Python and itself.
PACKAGES = ("ai-edge-litert", "numpy", "opencv-python", "pillow", "tensorflow", "tflite-runtime")


def connect(address: str | None = None) -> None:
    """Connect to the cluster at ``address``, for the rest of this process.

    Args:
        address: ``auto``, which is the cluster that this machine belongs to or that RAY_ADDRESS names;
            ``HOST:PORT`` of the head, of a cluster that this machine belongs to; or ``ray://HOST:PORT``.

    Raises:
        FacetpuError: no cluster is there, or it runs another version of Ray or Python.
    """
    address = address or AUTO
    if address != AUTO:
        _reach(address)
    try:
        context = ray.init(
            address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR
        )
    except ConnectionError as error:
        raise FacetpuError(_absent(address, error)) from None
    except (RuntimeError, ValueError) as error:
        raise FacetpuError(_refused(address, error)) from None
    url = context.dashboard_url
    dashboard = f"http://{url}" if url else "none, for want of ray[default] on its head"
    log.info("Ray: %d cores on %d nodes; dashboard: %s", cores(), len(node_names()), dashboard)


def cores() -> int:
    """The cores of all nodes that are alive."""
    return int(ray.cluster_resources().get("CPU", 0))


def nodes_with_cores() -> int:
    """How many of the nodes that are alive have cores to give: a head often has none."""
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())


def node_names() -> dict[str, str]:
    """The names of the nodes that are alive, by their ids: addresses, with the id where two share one."""
    alive = {node["NodeID"]: str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]}
    addresses = list(alive.values())
    return {
        node: address if addresses.count(address) == 1 else f"{address}/{node[:6]}"
        for node, address in alive.items()
    }


def head_answers() -> bool:
    """Whether the head is there. While it is not, Ray answers nothing, and at last ends this process."""
    if client.is_connected():  # Such a connection fails by itself.
        return True
    try:
        _touch(*ray.get_runtime_context().gcs_address.rsplit(":", 1))
    except OSError:
        return False
    return True


@functools.cache
def versions() -> dict[str, str]:
    """What is installed here of that which the results depend on; facetpu by its code too."""
    sha = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        sha.update(file.read_bytes())
    return {"facetpu": f"{__version__} ({sha.hexdigest()[:8]})", **dict(_installed(PACKAGES))}


def check_versions(node: str, theirs: dict[str, str]) -> None:
    """Refuse a node whose results might be other bytes.

    Raises:
        FacetpuError: something is missing there, or has another version.
    """
    ours = versions()
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name, "none"), theirs.get(name, "none")
        if here != there:
            raise FacetpuError(
                f"node {node}: has {name} {there}, and this machine {here}; install the same on all nodes"
            )


def _installed(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _reach(address: str) -> None:
    """Try the port of ``address``: Ray itself waits for minutes."""
    url = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = url.port or (CLIENT_PORT if url.scheme else HEAD_PORT)
        _touch(url.hostname or "", port)
    except (OSError, ValueError) as error:
        raise FacetpuError(_absent(address, error)) from None


def _touch(host: str, port: str | int) -> None:
    socket.create_connection((host, int(port)), REACH_SECONDS).close()


def _absent(address: str, error: Any) -> str:
    if address == AUTO:
        return (
            "this machine belongs to no Ray cluster; run ray start on it, or give --address ray://HOST:10001"
        )
    reason = str(getattr(error, "strerror", None) or error).split("\n")[0].lower()
    return f"{address}: no Ray cluster answers ({reason}); start one with ray start --head, or mend --address"


def _refused(address: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "ersion" in text and "mismatch" in text.lower():
        return f"{address}: {text} Install the same versions on this machine and on all nodes"
    return f"{address}: Ray refuses to connect: {text}"
