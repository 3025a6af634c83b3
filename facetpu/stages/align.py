"""align: a folder of photos to a folder of aligned crops.

A crop stands where its photo stood, as ``PERSON/PHOTO.png``. ``boxes.csv`` says where in the photos the
faces are, ``flags.csv`` what is doubtful about them, ``manifest.json`` which photos have none and which
cannot be read. Memory does not grow with the folder, but for some 100 bytes a crop while copies are sought
at the end, and the names of the photos that the manifest lists.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..alignment.crop_tables import BOXES, FLAGS, cells, write_tables
from ..alignment.journal import Entry, Journal, remove_journal
from ..alignment.kept import keep, kept
from ..alignment.review import REVIEW, write_review
from ..alignment.shards import GATHERED, Shard, gather
from ..artefacts import check_shared, digest, finished, new_folder, write_bytes, write_manifest
from ..board import ssd
from ..engines import Engine
from ..engines.local import Processes
from ..errors import FacetpuError
from ..image import Face, UnreadableImage, align_face, one_thread, read_image, write_crop
from ..labels import check_distinct, check_name
from ..mtcnn.detector import Detector, main_face
from ..mtcnn.weights import write_networks
from ..progress import progress
from ..runtime import find_runtime
from ..storage import absolute, as_path, is_remote, lies_in, remove, upload

log = logging.getLogger(__name__)

STAGE = "align"
FACES = ("main", "largest", "central", "best")
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}

# In the partial folder, and gone when it is complete.
_JOURNAL = ".journal"
_INCOMING = ".incoming"
_RECORDS = ".records"  # in a bucket

_MANY = 1000  # more faces than a photo has


class AlignConfig(NamedTuple):
    """What decides which crops come out.

    Attributes:
        size: side of a crop in pixels.
        template: ``arcface`` or ``box``, see ``facetpu.image.align_face``.
        margin: pixels around the box (template ``box``).
        min_face: the smallest face to look for, in pixels.
        drop_levels: finest levels of the detector's pyramid to leave out.
        all_faces: write ``PHOTO_1.png``, ``PHOTO_2.png`` ..., the surest face first, for every photo
            instead of ``PHOTO.png`` of one face.
        face: which one that is: ``main``, large and near the centre, as the reference aligner chooses
            it; ``largest``; ``central``; or ``best``, the surest.
        format: of the crops: ``png``, or ``jpeg`` at quality 95 with full colour, ``PHOTO.jpg``.
    """

    size: int = 112
    template: str = "arcface"
    margin: int = 44
    min_face: int = 20
    drop_levels: int = 0
    all_faces: bool = False
    face: str = "main"
    format: str = "png"

    def crops_of(self, stem: str, faces: int) -> list[str]:
        """The paths, below the folder of crops, of so many faces of the photo with this stem."""
        suffix = SUFFIXES[self.format]
        if self.all_faces:
            return [f"{stem}_{number}{suffix}" for number in range(1, faces + 1)]
        return [stem + suffix] * faces


DEFAULTS = AlignConfig()


class Alignment(NamedTuple):
    """What came of it: counts of photos, and of ``faces`` written."""

    out: Path
    photos: int
    aligned: int
    no_face: int
    unreadable: int
    faces: int

    def __str__(self) -> str:
        """One line, and where to look for what is missing."""
        text = f"{self.out}: {self.faces} faces from {self.aligned} of {self.photos} photos"
        if self.aligned < self.photos:
            text += (
                f"; {self.no_face} without a face and {self.unreadable} unreadable, "
                f"listed in {self.out / 'manifest.json'}"
            )
        return text


def align(
    photos: Path,
    crops: Path,
    config: AlignConfig = DEFAULTS,
    workers: int | None = None,
    overwrite: bool = False,
    shard: Shard | None = None,
    detector: Path | None = None,
    review: bool = False,
    engine: Engine | None = None,
) -> Alignment:
    """Find the faces in ``photos`` and write aligned crops to ``crops``.

    Workers are processes of their own: a script that calls this does so under
    ``if __name__ == "__main__"``. After a kill the same call goes on where that run stopped, and ends
    with the same bytes.

    Args:
        photos: one folder a person, or any other nesting.
        crops: the folder to make.
        config: which crops.
        workers: processes; one a core unless given, and one for a model on an Edge TPU.
        overwrite: replace ``crops`` if facetpu wrote it.
        shard: do this part only, in a folder beside ``crops``; a call without it takes the parts over.
        detector: an SSD model to find faces with, see ``facetpu.board.ssd``; else MTCNN does.
        review: write ``review.html`` too, a page of crops, misses and doubtful faces.
        engine: what does the work; ``workers`` processes of this machine unless given.

    Raises:
        FacetpuError: a folder or a name is unfit, or the detector cannot run.
    """
    place = as_path if engine is None else absolute
    photos, crops, detector = place(photos), place(crops), detector and place(detector)
    if is_remote(crops) and (shard or review):
        raise FacetpuError(f"{crops}: is in a bucket, and --shard and --review are for a folder on a disk")
    out = shard.folder(crops) if shard else crops
    with Journal.of(photos) as listing:
        _check(photos, out, listing.folders())
        settings, inputs = config._asdict(), {"photos": listing.digest()}
        if detector:
            _check_detector(detector, config, engine)
            inputs["detector"] = digest(detector)
            if engine is None and ssd.needs_edgetpu(detector):
                workers = workers or 1  # An Edge TPU serves one process.
        job = _Job(photos, out, config, detector, {})
        manifest = finished(out, STAGE, settings, _of_shard(inputs, shard))
        if manifest:
            log.info("%s: already made from these photos with these settings", out)
            counts = manifest["counts"]
        else:
            counts = _make(job, listing, engine or Processes(workers), overwrite, inputs, shard)
    if review:
        write_review(photos, out)
        log.info("%s: what to look at", out / REVIEW)
    return Alignment(out, **counts)


def _make(
    job: _Job,
    listing: Journal,
    engine: Engine,
    overwrite: bool,
    inputs: dict[str, str],
    shard: Shard | None,
) -> dict[str, int]:
    """Make the folder, or go on with it; the counts for the manifest."""
    find_runtime()
    out, settings = job.out, job.config._asdict()
    key = {"config": settings, "inputs": _of_shard(inputs, shard), "version": __version__}
    with new_folder(out, overwrite, key, keep=True) as partial, _desk(partial) as desk:
        job = job._replace(out=partial)
        if not (desk / _JOURNAL).exists():
            if shard:
                listing.keep_shard(*shard)
            listing.save(desk / _JOURNAL)
        with Journal(desk / _JOURNAL) as journal:
            if is_remote(partial):
                for photo, record in kept(partial / _RECORDS):
                    journal.note(photo, record)
            else:
                _forget_lost_crops(journal, job)
                if not shard:
                    gather(out, partial, journal, lambda made, of: _is_made(made, settings, inputs, of))
            if known := journal.count(done=True):
                log.info("%s: %d photos were done before", out, known)
            _align_what_is_left(journal, job, engine)
            counts = _write_results(journal, job, desk, _of_shard(inputs, shard))
        remove_journal(desk / _JOURNAL)
        _clear(partial)
    if counts["photos"] and not counts["aligned"]:
        log.warning("%s: no photo has a face", job.photos)
    return counts


@contextlib.contextmanager
def _desk(partial: Path) -> Iterator[Path]:
    """A folder on a disk to work in: ``partial``, unless that is in a bucket."""
    if not is_remote(partial):
        yield partial
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _clear(partial: Path) -> None:
    """Remove what only the making needed."""
    if is_remote(partial):
        remove(partial / _RECORDS)
        return
    for folder in (_INCOMING, GATHERED):
        shutil.rmtree(partial / folder, ignore_errors=True)
    if hasattr(os, "sync"):
        os.sync()  # The crops were not synced one by one; a power cut must not empty them now.


def _is_made(out: Path, settings: dict[str, Any], inputs: dict[str, str], shard: Shard | None) -> bool:
    return bool(finished(out, STAGE, settings, _of_shard(inputs, shard)))


def _of_shard(inputs: dict[str, str], shard: Shard | None) -> dict[str, str]:
    return {**inputs, "shard": str(shard)} if shard else inputs


def _check(photos: Path, out: Path, people: Iterable[str]) -> None:
    """Refuse unfit names, and crops among the photos, where the next run would take them for photos."""
    names = [check_name(person, str(photos)) and person for person in people]
    check_distinct(names, str(photos))
    if lies_in(out, photos):
        raise FacetpuError(f"{out}: lies in {photos}; choose a place outside of it")


def _check_detector(detector: Path, config: AlignConfig, engine: Engine | None) -> None:
    if config.drop_levels:
        raise FacetpuError("--drop-levels is for MTCNN's pyramid; leave it out with --detector")
    ssd.find_tensors(detector)
    if engine is not None and ssd.needs_edgetpu(detector):
        raise FacetpuError(
            f"{detector}: is for this machine's Edge TPU; give --engine ray the uncompiled one"
        )


def _forget_lost_crops(journal: Journal, job: _Job) -> None:
    """Have the photos done again whose crops a power cut took from the disk."""
    for photo, stem, record in journal.done():
        crops = job.config.crops_of(stem, len(record.get("faces", ())))
        if not all(_holds_data(job.out / crop) for crop in crops):
            journal.note(photo, {})


def _holds_data(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _align_what_is_left(journal: Journal, job: _Job, engine: Engine) -> None:
    done = journal.count(done=True)
    total = journal.count()
    if done == total:
        return
    if not is_remote(job.out):
        shutil.rmtree(job.out / _INCOMING, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        write_networks(Path(folder))
        job = job._replace(networks={file.name: file.read_bytes() for file in Path(folder).iterdir()})
    answers = engine.each(_align_photo, journal.left(), _start_worker, (job,), _crashed(job))
    if is_remote(job.out):
        answers = keep(answers, job.out / _RECORDS)
    for photo, record in progress(answers, STAGE, total, done=done, note=engine.status):
        journal.note(photo, record)
    if left := total - journal.count(done=True):
        raise FacetpuError(
            f"{job.photos}: {left} of {total} photos were left undone; run the same command again"
        )


def _write_results(journal: Journal, job: _Job, desk: Path, inputs: dict[str, str]) -> dict[str, int]:
    """Write the tables and the manifest; returns the counts."""
    tally = write_tables(desk, journal, job.config.crops_of)
    if desk != job.out:
        for table in (BOXES, FLAGS):
            upload(desk / table, job.out / table)
    photos = journal.count()
    counts = {
        "photos": photos,
        "aligned": photos - len(tally.no_face) - len(tally.unreadable),
        "no_face": len(tally.no_face),
        "unreadable": len(tally.unreadable),
        "faces": tally.faces,
    }
    size, template, margin = job.config[:3]
    write_manifest(
        job.out,
        STAGE,
        job.config._asdict(),
        inputs,
        alignment={"template": template, "size": size, "margin": margin},
        counts=counts,
        no_face=tally.no_face,
        unreadable=tally.unreadable,
    )
    return counts


# The workers


class _Job(NamedTuple):
    """What every worker knows: from where, to where, and how; the networks as files by name."""

    photos: Path
    out: Path
    config: AlignConfig
    detector: Path | None
    networks: dict[str, bytes]


_job: _Job  # in a worker
_detector: Detector
_incoming: Path
_networks: tempfile.TemporaryDirectory[str]  # as long as the detector, which opens them when it needs them


def _start_worker(job: _Job) -> None:
    """Load the detector once.

    Raises:
        FacetpuError: the folders cannot be seen from where this runs.
    """
    global _job, _detector, _incoming, _networks
    one_thread()
    _job, config = job, job.config
    check_shared(job.photos, job.out)
    _networks = tempfile.TemporaryDirectory()
    networks = Path(_networks.name)
    for name, data in job.networks.items():
        (networks / name).write_bytes(data)
    # Of a name of its own: workers of several machines may have one number.
    incoming = networks if is_remote(job.out) else job.out / _INCOMING
    incoming.mkdir(exist_ok=True)
    _incoming = incoming / f"{uuid.uuid4().hex}{SUFFIXES[config.format]}"
    if job.detector:
        _detector = ssd.Detector(job.detector, networks, config.min_face)
    else:
        _detector = Detector(networks, config.min_face, config.drop_levels)


def _align_photo(entry: Entry) -> tuple[str, dict[str, Any]]:
    """Write the crops of one photo; its name and the record of it.

    Raises:
        FacetpuError: the photo was there when the run began, and is no longer.
    """
    path = _job.photos / entry.photo
    try:
        if not is_remote(path):
            os.lstat(path)
        image = read_image(path)
    except UnreadableImage as error:
        return entry.photo, {"unreadable": error.reason}
    except FileNotFoundError:
        raise FacetpuError(
            f"{path}: is gone since the run began; bring it back and run the command again"
        ) from None
    found = _detector.detect(image)
    faces, others = found, []
    if found and not _job.config.all_faces:
        faces = [choose_face(found, image.shape, _job.config.face)]
        others = [face for face in found if face is not faces[0]]
    template, size, margin = _job.config.template, _job.config.size, _job.config.margin
    for face, crop in zip(faces, _job.config.crops_of(entry.stem, len(faces)), strict=True):
        _write_crop(_job.out / crop, align_face(image, face, template, size, margin))
    return entry.photo, {"seen": len(found), "faces": [cells(image, face, others) for face in faces]}


def _write_crop(path: Path, crop: np.ndarray) -> None:
    """Write ``crop`` to ``path``, whole or not at all.

    Raises:
        OSError: it cannot be written; with a name in it.
    """
    try:
        write_crop(_incoming, crop)
        if is_remote(path):
            write_bytes(path, _incoming.read_bytes())
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(_incoming, path)
    except OSError as error:
        if error.filename is None:  # a write to an open file that fails, as on a full disk, has no name
            error.filename = str(path)
        raise


def choose_face(faces: list[Face], shape: tuple[int, ...], rule: str) -> Face:
    """The one of ``faces`` that a photo of ``shape`` is of, by one of the rules ``FACES``."""

    def area(face: Face) -> float:
        x1, y1, x2, y2 = face.box
        return (x2 - x1) * (y2 - y1)

    def nearness(face: Face) -> float:
        x1, y1, x2, y2 = face.box
        return -((x1 + x2 - shape[1]) ** 2) - (y1 + y2 - shape[0]) ** 2

    if rule == "largest":
        return max(faces, key=area)
    if rule == "central":
        return max(faces, key=nearness)
    return faces[0] if rule == "best" else main_face(faces, shape)


def _crashed(job: _Job) -> Callable[[Entry, str], tuple[str, dict[str, Any]]]:
    """What is noted of a photo that killed the process that was at it, twice."""

    def note(entry: Entry, reason: str) -> tuple[str, dict[str, Any]]:
        for crop in dict.fromkeys(
            job.config.crops_of(entry.stem, _MANY)
        ):  # of which it may have written some
            with contextlib.suppress(FileNotFoundError):
                (job.out / crop).unlink()
        log.warning("%s: crashed the process that read it, which %s", job.photos / entry.photo, reason)
        return entry.photo, {"unreadable": f"crashed the process that read it, which {reason}"}

    return note
