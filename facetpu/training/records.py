"""Folders of TFRecords with slim's keys: what they hold, and their batches in a seeded order.

A folder has shards ``train-00000-of-00008.tfrecord`` and ``validation-...``, ``labels.txt`` and
``manifest.json``. Training photo k of epoch e is a function of the seed alone, so that a resumed
training sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import MANIFEST, read_manifest
from ..config import TrainConfig
from ..errors import FacetpuError
from ..labels import read_labels
from ..nets.tensorflow import tf
from ..people import check_folder
from .augmentation import Draws, augment, draw
from .cluster import WHOLE, Share
from .sampling import Choose, read_index

SHUFFLE_BLOCK = 8192  # encoded photos, about 20 KB each, that are shuffled together
MOST_HELD = 512 << 20  # bytes of pixels: 14,000 photos of 112 px
HELD_BATCH = 256  # photos that are decoded together


class Records(NamedTuple):
    """What a folder of records holds."""

    folder: Path
    labels: list[str]
    alignment: dict[str, Any]
    train: list[str]  # paths of the shards
    validation: list[str]
    photos: int  # to train on
    validation_photos: int
    held_out: Sequence[str] = ()  # of people who are not trained on; their labels are numbers of their own
    unknown: int | None = None  # the label of other people's faces
    unlabelled: int = 0  # photos to train on that have no label, which is -1
    shard_photos: Sequence[int] = ()  # in each shard of ``train``

    @property
    def image_size(self) -> int:
        """The side of every photo in pixels."""
        return int(self.alignment["size"])


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of shard ``index`` of ``count``."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """``keys`` in an order that only they and ``seed`` decide, on every platform and for ever."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())


def write_shard(path: Path, examples: Iterable[bytes]) -> None:
    """Write serialised examples to the shard ``path``.

    Raises:
        OSError: the disk is full.
    """
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                writer.write(example)
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None


def make_example(encoded: bytes, size: int, label: int, person: str, filename: str) -> bytes:
    """One PNG photo of ``size`` x ``size`` pixels as a serialised tf.Example with slim's keys."""

    def text(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def number(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {
        "image/encoded": text(encoded),
        "image/format": text(b"png"),
        "image/class/label": number(label),
        "image/class/text": text(person.encode("utf-8")),
        "image/filename": text(filename.encode("utf-8")),
        "image/height": number(size),
        "image/width": number(size),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString(deterministic=True))


def read_records(folder: Path) -> Records:
    """Check the folder of records ``folder`` by its manifest, without reading the photos.

    Raises:
        FacetpuError: it is no folder of records, it holds no photo, or a shard is missing or cut short.
    """
    folder = Path(folder)
    check_folder(folder)
    manifest = read_manifest(folder)
    if manifest.get("stage") != "pack":
        raise FacetpuError(f"{folder}: holds no records; make them with facetpu pack CROPS {folder}")
    for name, size in manifest["shards"].items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes and should have {size}"
            raise FacetpuError(f"{folder / name}: {state}; pack the records again with --overwrite")
    if not manifest["train"]:
        raise FacetpuError(f"{folder / MANIFEST}: counts no photo to train on; pack the records again")
    paths = {
        split: [str(folder / name) for name in manifest["shards"] if name.startswith(split)]
        for split in ("train", "validation", "held_out")
    }
    labels = read_labels(folder / "labels.txt")
    return Records(
        folder=folder,
        labels=labels,
        alignment=manifest["alignment"],
        train=paths["train"],
        validation=paths["validation"],
        photos=manifest["train"],
        validation_photos=manifest["validation"],
        held_out=paths["held_out"],
        unknown=manifest.get("unknown"),
        unlabelled=manifest.get("unlabelled", 0),
        shard_photos=spread(manifest["train"], len(paths["train"])),
    )


class Batch(NamedTuple):
    """A step's photos.

    Attributes:
        pixels: float32 ``[B, S, S, 3]``, augmented, 0 to 255.
        labels: int64 ``[B]``; -1 for a photo of nobody known.
        rows: int64 ``[B]``, which training photo each is, counted through the shards in order.
        flipped: bool ``[B]``, whether it is mirrored.
        targets: float32 ``[B, D]``, what a teacher wants; D is 0 without one.
    """

    pixels: Any
    labels: Any
    rows: Any
    flipped: Any
    targets: Any


class Held(NamedTuple):
    """All training photos in memory, decoded once: decoding takes as long as most changes to a picture.

    Attributes:
        pixels: uint8 ``[n, S, S, 3]``.
        labels: int64 ``[n]``.
    """

    pixels: Any
    labels: Any


def hold(records: Records, most: int = MOST_HELD) -> Held | None:
    """Decode the training photos into memory, unless their pixels are more than ``most`` bytes."""
    shape = (records.photos, records.image_size, records.image_size, 3)
    if math.prod(shape) > most:
        return None
    pixels, labels = np.empty(shape, np.uint8), np.empty(shape[0], np.int64)
    done = 0
    for some, known in all_photos(records, records.train, HELD_BATCH):
        pixels[done : done + len(known)], labels[done : done + len(known)] = some, known
        done += len(known)
    with tf.device("CPU"):
        return Held(tf.constant(pixels), tf.constant(labels))


# pixels, rows and flipped of a batch, to its targets.
Teach = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def training_batches(
    records: Records,
    config: TrainConfig,
    start: int,
    choose: Choose | None = None,
    teach: Teach | None = None,
    share: Share = WHOLE,
    held: Held | None = None,
) -> Any:
    """Augmented batches from step ``start`` on, without end.

    Args:
        records: where the photos are.
        config: the batch's size, the augmentation and the seed.
        start: the first batch's step.
        choose: the rows of the photos of a step; each photo once an epoch unless given.
        teach: a teacher's targets for a batch.
        share: the part of every batch to give; its pictures are what they are in the whole one.
        held: the decoded photos; each is decoded when its turn comes unless given.

    Returns:
        A tf.data.Dataset of :class:`Batch`.
    """
    # A picture may be crossed with the one before it, which the worker before has.
    more = 1 if config.augmentation.mix and share.workers > 1 else 0
    places = share.places(config.batch_size, more)

    def changed(step: Any, batch: Any) -> Any:
        rows, pixels, labels = batch
        draws = draw(config.batch_size, [config.seed, step])
        draws = Draws(*(tf.gather(kind, places, axis=1) for kind in draws))
        pixels = augment(tf.cast(pixels, tf.float32), config.augmentation, draws)
        if config.augmentation.mix:
            labels = tf.where(draws.mixed(config.augmentation), tf.constant(-1, tf.int64), labels)
        batch = Batch(pixels, labels, rows, draws.flipped(config.augmentation), tf.zeros([len(places), 0]))
        return Batch(*(values[more:] for values in batch))

    def taught(batch: Batch) -> Any:
        targets = tf.numpy_function(teach, [batch.pixels, batch.rows, batch.flipped], tf.float32)
        return batch._replace(targets=tf.ensure_shape(targets, [len(places) - more, None]))

    photos = _in_epochs(records, config, start) if choose is None else _chosen(records, start, choose)
    if share.workers > 1:
        photos = photos.batch(config.batch_size, drop_remainder=True)
        photos = photos.map(lambda *whole: tuple(tf.gather(values, places) for values in whole)).unbatch()
    if held is None:
        photos = photos.map(
            lambda row, example: (row, *_parse(example, records.image_size)), tf.data.AUTOTUNE
        )
        batches = photos.batch(len(places), drop_remainder=True)
    else:
        batches = photos.map(lambda row, example: row).batch(len(places), drop_remainder=True)
        batches = batches.map(lambda rows: (rows, tf.gather(held.pixels, rows), tf.gather(held.labels, rows)))
    batches = batches.enumerate(start).map(changed, tf.data.AUTOTUNE)
    if teach is not None:
        batches = batches.prefetch(1).map(taught)  # one batch at a time: the teacher takes all cores
    return batches.prefetch(tf.data.AUTOTUNE)


def _in_epochs(records: Records, config: TrainConfig, start: int) -> Any:
    """(row, example) of every training photo, each epoch in an order of its own."""
    first_epoch, skip = divmod(start * config.batch_size, records.photos)
    first_rows = np.cumsum([0, *records.shard_photos]).tolist()[:-1]

    def epoch(number: Any) -> Any:
        def shuffle(items: Any) -> Any:
            # Not Dataset.shuffle, whose seed cannot follow the epoch: a resumed run must find its place.
            return tf.random.experimental.stateless_shuffle(items, [config.seed, number])

        def examples(shard: Any, first_row: Any) -> Any:
            return tf.data.TFRecordDataset(shard).enumerate(first_row)

        shards = tf.data.Dataset.from_tensor_slices(
            (shuffle(records.train), shuffle(tf.constant(first_rows, tf.int64)))
        )
        blocks = shards.flat_map(examples).batch(SHUFFLE_BLOCK)
        # One seed shuffles the rows as it does the examples.
        photos = blocks.flat_map(
            lambda rows, block: tf.data.Dataset.from_tensor_slices((shuffle(rows), shuffle(block)))
        )
        return photos.skip(tf.where(number == first_epoch, tf.constant(skip, tf.int64), 0))

    return tf.data.Dataset.counter(start=first_epoch).flat_map(epoch)


def _chosen(records: Records, start: int, choose: Choose) -> Any:
    """(row, example) of the photos that ``choose`` names for each step."""
    index = read_index(records.train)

    def read(step: Any) -> Any:
        rows = choose(int(step))
        return rows, np.array(index.read(rows), object)

    def photos(step: Any) -> Any:
        rows, examples = tf.numpy_function(read, [step], [tf.int64, tf.string])
        return tf.data.Dataset.from_tensor_slices((tf.ensure_shape(rows, [None]), examples))

    return tf.data.Dataset.counter(start=start).flat_map(photos)


def all_photos(records: Records, shards: Sequence[str], batch_size: int) -> Any:
    """Every photo of ``shards`` once, in order: (float32 ``[B, S, S, 3]``, int64 ``[B]`` labels)."""
    photos = tf.data.TFRecordDataset(shards)
    photos = photos.map(lambda example: _parse(example, records.image_size), tf.data.AUTOTUNE)
    batches = photos.batch(batch_size)
    return batches.map(lambda pixels, labels: (tf.cast(pixels, tf.float32), labels)).prefetch(1)


def some_photos(records: Records, rows: np.ndarray, batch_size: int) -> Any:
    """The training photos ``rows``, in that order, as :func:`all_photos` gives them."""
    index = read_index(records.train)
    photos = tf.data.Dataset.from_generator(
        lambda: iter(index.read(rows)), output_signature=tf.TensorSpec([], tf.string)
    )
    photos = photos.map(lambda example: _parse(example, records.image_size), tf.data.AUTOTUNE)
    batches = photos.batch(batch_size)
    return batches.map(lambda pixels, labels: (tf.cast(pixels, tf.float32), labels)).prefetch(1)


def first_photos(records: Records, count: int) -> Any:
    """An iterator over the first ``count`` training photos as (uint8 ``[S, S, 3]``, label)."""
    photos = tf.data.TFRecordDataset(records.train).take(count)
    photos = photos.map(lambda example: _parse(example, records.image_size))
    return photos.as_numpy_iterator()


def spread(photos: int, shards: int) -> list[int]:
    """How many photos each of ``shards`` holds: shares that differ by one at most, so that none is empty."""
    return [photos * (index + 1) // shards - photos * index // shards for index in range(shards)]


@contextlib.contextmanager
def damage_named(records: Records) -> Iterator[None]:
    """Where reading photos of ``records`` fails, say which shard is damaged, and after how many photos.

    Raises:
        FacetpuError: a shard is damaged.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        damage = _find_damage(records)
        if damage is None:
            raise
        raise damage from None


def _find_damage(records: Records) -> FacetpuError | None:
    """Read every photo and say which shard is damaged, or None where all are sound."""
    for shard in (*records.train, *records.validation, *records.held_out):
        photos = tf.data.TFRecordDataset(shard)
        count = 0
        try:
            for _ in photos.map(lambda example: _parse(example, records.image_size)):
                count += 1
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            reason = str(error.message).split(". ")[0].split(" [[")[0].splitlines()[0]
            return FacetpuError(
                f"{shard}: is damaged after {count} photos ({reason}); pack again with --overwrite"
            )
    return None


def _parse(example: Any, size: int) -> Any:
    """One photo: (uint8 ``[size, size, 3]``, int64 label)."""
    features = tf.io.parse_single_example(
        example,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    pixels = tf.io.decode_png(features["image/encoded"], channels=3)
    return tf.ensure_shape(pixels, [size, size, 3]), features["image/class/label"]
