"""align: a folder of photos to a folder of aligned crops.

A crop stands where its photo stood, as ``PERSON/PHOTO.png``; ``boxes.csv`` says where in the photos
the faces are, ``manifest.json`` which photos have none and which cannot be read.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .. import __version__
from ..artefacts import digest, finished, new_folder, write_manifest
from ..errors import FacetpuError
from ..image import Face, UnreadableImage, align_face, one_thread, read_image, write_png
from ..labels import check_distinct, check_name
from ..mtcnn.detector import Detector, main_face
from ..mtcnn.weights import write_networks
from ..people import photos_under
from ..progress import progress
from ..runtime import find_runtime
from ..workers import each

log = logging.getLogger(__name__)

STAGE = "align"
BOXES = "boxes.csv"
LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
COLUMNS = (
    "photo",
    "x1",
    "y1",
    "x2",
    "y2",
    "score",
    *(f"{point}_{axis}" for point in LANDMARKS for axis in "xy"),
)

# In the partial folder, and gone when it is complete.
_JOURNAL = ".journal"
_NETWORKS = ".networks"
_INCOMING = ".incoming"


class AlignConfig(NamedTuple):
    """What decides which crops come out.

    Attributes:
        size: side of a crop in pixels.
        template: ``arcface`` or ``box``, see ``facetpu.image.align_face``.
        margin: pixels around the box (template ``box``).
        min_face: the smallest face to look for, in pixels.
        drop_levels: finest levels of the detector's pyramid to leave out.
        all_faces: write ``PHOTO_1.png``, ``PHOTO_2.png`` ..., the surest face first, for every photo
            instead of ``PHOTO.png`` of its main face.
    """

    size: int = 112
    template: str = "arcface"
    margin: int = 44
    min_face: int = 20
    drop_levels: int = 0
    all_faces: bool = False


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
) -> Alignment:
    """Find the faces in ``photos`` and write aligned crops to ``crops``.

    Workers are processes of their own: a script that calls this does so under
    ``if __name__ == "__main__"``. After a kill the same call goes on where that run stopped, and ends
    with the same bytes.

    Args:
        photos: one folder a person, or any other nesting.
        crops: the folder to make.
        config: which crops.
        workers: processes; one a core unless given.
        overwrite: replace ``crops`` if facetpu wrote it.

    Raises:
        FacetpuError: a folder or a name is unfit, the detector cannot run, or a worker died.
    """
    photos, crops = Path(photos), Path(crops)
    names = _photo_names(photos)
    _check_apart(photos, crops)
    settings, inputs = config._asdict(), {"photos": digest(photos, times=True)}
    manifest = finished(crops, STAGE, settings, inputs)
    if manifest:
        log.info("%s: already made from these photos with these settings", crops)
        return Alignment(crops, **manifest["counts"])
    find_runtime()
    key = {"config": settings, "inputs": inputs, "version": __version__}
    with new_folder(crops, overwrite, key, keep=True) as partial:
        stems = _crop_stems(names)
        done = _read_journal(partial, config, stems)
        if done:
            log.info("%s: %d photos were done before", crops, len(done))
        left = [(name, stems[name]) for name in names if name not in done]
        with open(partial / _JOURNAL, "ab") as journal:
            records = _records(_Job(photos, partial, config), left, workers)
            for record in progress(records, STAGE, len(names), done=len(done)):
                line = _journal_line(record)
                journal.write(line)
                journal.flush()
                done[record["photo"]] = line
        counts = _write_results(partial, config, inputs, done)
        (partial / _JOURNAL).unlink()
        for folder in (_NETWORKS, _INCOMING):
            shutil.rmtree(partial / folder, ignore_errors=True)
        if hasattr(os, "sync"):
            os.sync()  # The crops were not synced one by one; a power cut must not empty them now.
    if not counts["aligned"]:
        log.warning("%s: no photo has a face", photos)
    return Alignment(crops, **counts)


# Names


def _photo_names(photos: Path) -> list[str]:
    """The photos by their paths below ``photos``, with slashes; every name is fit to be written down."""
    names = [file.relative_to(photos).as_posix() for file in photos_under(photos)]
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise FacetpuError(f"{photos}: the name {name!a} is not UTF-8; rename it") from None
    people = dict.fromkeys(name.split("/")[0] for name in names if "/" in name)
    for person in people:
        check_name(person, str(photos))
    check_distinct(people, str(photos))
    return names


def _check_apart(photos: Path, crops: Path) -> None:
    """Refuse crops among the photos, where the next run would take them for photos."""
    if photos.resolve() in crops.resolve().parents:
        raise FacetpuError(f"{crops}: lies in {photos}; choose a place outside of it")


def _crop_stems(names: Sequence[str]) -> dict[str, str]:
    """Where each photo's crop goes, without ``.png``: the photo's path without its ending.

    Photos that differ only in the ending (``a.jpg``, ``a.png``), or in letter case, keep it:
    ``a.jpg.png``, ``a.png.png``. So no crop is ever lost, and none depends on which photo came first.
    """
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    while True:
        taken = Counter(stem.casefold() for stem in stems.values())
        double = [name for name, stem in stems.items() if stem != name and taken[stem.casefold()] > 1]
        if not double:
            return stems
        stems.update((name, name) for name in double)


def _crop_paths(stem: str, faces: int, config: AlignConfig) -> list[str]:
    """The paths, below the crops, of so many faces of one photo."""
    if config.all_faces:
        return [f"{stem}_{number}.png" for number in range(1, faces + 1)]
    return [f"{stem}.png"] * faces


# The journal: one line of JSON for every photo that is done


def _journal_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"


def _read_journal(partial: Path, config: AlignConfig, stems: dict[str, str]) -> dict[str, bytes]:
    """The journal's line for each photo that an earlier run finished, crops included.

    What a kill or a power cut left incomplete is cut off, so that the next line starts a line.
    """
    path, done, size = partial / _JOURNAL, {}, 0
    if path.is_file():
        with open(path, "rb") as journal:
            for line in journal:
                try:
                    record = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                written = _crop_paths(stems[record["photo"]], len(record.get("faces", [])), config)
                if all(_holds_data(partial / crop) for crop in written):
                    done[record["photo"]] = line
        os.truncate(path, size)
    return done


def _holds_data(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _write_results(
    partial: Path, config: AlignConfig, inputs: dict[str, str], done: dict[str, bytes]
) -> dict[str, int]:
    """Write boxes.csv and the manifest from the journal's lines; returns the counts."""
    no_face, unreadable, faces = [], [], 0
    with open(partial / BOXES, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for photo in sorted(done):
            record = json.loads(done[photo])
            if "unreadable" in record:
                unreadable.append({"photo": photo, "reason": record["unreadable"]})
            elif not record["faces"]:
                no_face.append(photo)
            else:
                faces += len(record["faces"])
                table.writerows([photo, *face] for face in record["faces"])
    counts = {
        "photos": len(done),
        "aligned": len(done) - len(no_face) - len(unreadable),
        "no_face": len(no_face),
        "unreadable": len(unreadable),
        "faces": faces,
    }
    write_manifest(
        partial,
        STAGE,
        config._asdict(),
        inputs,
        alignment={"template": config.template, "size": config.size, "margin": config.margin},
        counts=counts,
        no_face=no_face,
        unreadable=unreadable,
    )
    return counts


# The workers


class _Job(NamedTuple):
    """What every worker knows: from where, to where, and how."""

    photos: Path
    partial: Path
    config: AlignConfig


_job: _Job  # in a worker
_detector: Detector


def _records(job: _Job, left: list[tuple[str, str]], workers: int | None) -> Iterator[dict[str, Any]]:
    """Align the photos that are left, each given with the stem of its crops; a record for each."""
    for folder in (_NETWORKS, _INCOMING):
        shutil.rmtree(job.partial / folder, ignore_errors=True)
        (job.partial / folder).mkdir()
    write_networks(job.partial / _NETWORKS)
    return each(_align_photo, left, workers, _start_worker, (job,))


def _start_worker(job: _Job) -> None:
    global _job, _detector
    one_thread()
    _job = job
    _detector = Detector(job.partial / _NETWORKS, job.config.min_face, job.config.drop_levels)


def _align_photo(photo_and_stem: tuple[str, str]) -> dict[str, Any]:
    """Write the crops of one photo; the record of it.

    Raises:
        FacetpuError: the photo was there when the run began, and is no longer.
    """
    photo, stem = photo_and_stem
    path = _job.photos / photo
    if not path.exists():
        raise FacetpuError(f"{path}: is gone since the run began; bring it back and run the command again")
    try:
        image = read_image(path)
    except UnreadableImage as error:
        return {"photo": photo, "unreadable": error.reason}
    faces = _detector.detect(image)
    if faces and not _job.config.all_faces:
        faces = [main_face(faces, image.shape)]
    template, size, margin = _job.config.template, _job.config.size, _job.config.margin
    for face, crop in zip(faces, _crop_paths(stem, len(faces), _job.config), strict=True):
        incoming = _job.partial / _INCOMING / f"{os.getpid()}.png"
        write_png(incoming, align_face(image, face, template, size, margin))
        (_job.partial / crop).parent.mkdir(parents=True, exist_ok=True)
        os.replace(incoming, _job.partial / crop)
    return {"photo": photo, "faces": [_row(face) for face in faces]}


def _row(face: Face) -> list[float]:
    """``face`` as boxes.csv has it: thousandths of a pixel, millionths of a score."""
    box = [round(side, 3) for side in face.box]
    return [*box, round(face.score, 6), *(round(value, 3) for value in face.landmarks.ravel().tolist())]
