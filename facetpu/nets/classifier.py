"""A network with the head that weight imprinting needs: who is in the picture, as cosines.

pixels -> (x - 128) / 128 -> network -> average pool -> 1x1 conv to D -> L2 norm -> 1x1 conv with
L2-normalised weights and no bias = cosines. Row i of those weights is the direction of person i's
embeddings, so that the mean embedding of a new person is a new row (Qi et al., arXiv:1712.07136).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..config import Network, nearest
from ..errors import FacetpuError
from .fake_quant import QUANTIZABLE, biased, rounding
from .inception_resnet_v1 import inception_resnet_v1
from .mobilefacenet import mobilefacenet
from .mobilenet_v1 import mobilenet_v1
from .mobilenet_v2 import mobilenet_v2
from .resnet50 import resnet50, se_resnet50
from .squeezenet import squeezenet
from .tensorflow import slim, tf, v1
from .vgg16 import vgg16

# What network.name may be: each takes images of about -1 to 1 and gives a feature map.
NETWORKS: dict[str, Callable[[Any, Network, bool], Any]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilefacenet": mobilefacenet,
    "inception_resnet_v1": inception_resnet_v1,
    "squeezenet": squeezenet,
    "vgg16": vgg16,
    "resnet50": resnet50,
    "se_resnet50": se_resnet50,
}

# Pixels a side that a network needs, where those of the config's lower bound are too few.
SMALLEST = {"inception_resnet_v1": 75}

PIXEL_MEAN = 128.0
PIXEL_SCALE = 1 / 128.0
INITIAL_SCALE = 10.0


class Output(NamedTuple):
    """What the classifier says of a batch of B images."""

    embedding: Any  # float32 [B, 1, 1, D], before its L2 norm
    cosines: Any  # float32 [B, people]
    scale: Any  # float32 scalar, trained: logits = scale * cosines


def classify(pixels: Any, network: Network, people: int, is_training: bool) -> Output:
    """Build the graph, in a ``tf.function`` or in a TensorFlow 1 graph.

    Args:
        pixels: float32 ``[B, H, W, 3]``, RGB, 0 to 255.
        network: which network, and its sizes.
        people: how many people the head tells apart.
        is_training: whether batch norm uses the batch's statistics.
    """
    images = (pixels - PIXEL_MEAN) * PIXEL_SCALE
    net = find_network(network.name)(images, network, is_training)
    net = tf.nn.avg_pool2d(net, net.shape[1:3], strides=1, padding="VALID")
    embedding = slim.conv2d(
        net,
        network.embedding_dim,
        1,
        activation_fn=rounding(None, network, is_training),
        normalizer_fn=biased if network.quantization_aware else None,
        scope="Embedding",
    )
    with v1.variable_scope("Logits"):
        kernel = slim.model_variable(
            "weights",
            [1, 1, network.embedding_dim, people],
            initializer=v1.truncated_normal_initializer(stddev=0.09),
        )
        scale = slim.model_variable("scale", [], initializer=v1.constant_initializer(INITIAL_SCALE))
        cosines = tf.nn.conv2d(
            tf.nn.l2_normalize(embedding, 3), tf.nn.l2_normalize(kernel, 2), strides=1, padding="VALID"
        )
    return Output(embedding, tf.squeeze(cosines, [1, 2]), scale)


class Classifier(tf.Module):
    """:func:`classify` for TF2: it holds its variables, whose names are those of slim's checkpoints."""

    def __init__(self, network: Network, people: int) -> None:
        super().__init__()
        self.network = network
        self.people = people

    @v1.keras.utils.track_tf1_style_variables
    def __call__(self, pixels: Any, is_training: bool) -> Output:
        """See :func:`classify`."""
        return classify(pixels, self.network, self.people, is_training)


def find_network(name: str) -> Callable[[Any, Network, bool], Any]:
    """The network called ``name``.

    Raises:
        FacetpuError: there is none.
    """
    if name not in NETWORKS:
        raise FacetpuError(f"network.name: there is no network {name!r}{nearest(name, NETWORKS)}")
    return NETWORKS[name]


def check_network(network: Network) -> None:
    """Refuse a network that cannot be built.

    Raises:
        FacetpuError: there is none of that name, the image is too small for it, or it cannot be trained
            for integers.
    """
    find_network(network.name)
    if network.quantization_aware and network.name not in QUANTIZABLE:
        raise FacetpuError(
            f"network.quantization_aware: {network.name} cannot be trained with rounding; "
            f"{', '.join(QUANTIZABLE)} can"
        )
    smallest = SMALLEST.get(network.name, 0)
    if network.image_size < smallest:
        raise FacetpuError(
            f"network.image_size is {network.image_size}, and {network.name} needs images of at least "
            f"{smallest} px; align with --size {smallest} or more"
        )
