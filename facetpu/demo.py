"""The whole chain on people who do not exist: render, align, train, export, enrol, identify."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .artefacts import check_new, finished, new_file, new_folder, write_manifest, write_text
from .board.enrol import imprint
from .board.faces import KnownFace
from .board.identify import PhotoFaces, identify
from .config import TrainConfig, read_config
from .contact_sheet import BLUE, GREEN, GREY, RED, Cell, Section, contact_sheet
from .evaluation.figures import Evaluation
from .export import export
from .image import read_image, write_png
from .people import people_under
from .portraits import draw_people, write_portraits
from .stages.align import AlignConfig, Alignment, align
from .stages.evaluate import evaluate
from .stages.pack import pack
from .stages.train import train

log = logging.getLogger(__name__)

CONFIG = "demo.yaml"  # in the package, since an installed facetpu has no configs/
REPORT, PICTURE, README = "report.json", "identified.png", "README.md"
FALSE_ACCEPTS = 0.05  # share of strangers' faces that may be taken for somebody


class Scale(NamedTuple):
    """How many people and portraits; those to enrol and the strangers are never trained on."""

    people: int = 360
    photos: int = 8  # of each, to train on
    enrolled: int = 10
    portraits: int = 5  # of each, to enrol
    strangers: int = 10
    tests: int = 10  # of each enrolled person and of each stranger
    epochs: float | None = None  # the config's unless given


class DemoResult(NamedTuple):
    """How well the int8 model does on people it was never trained on, and how long it all took."""

    out: Path
    picture: Path
    trained: int  # people to train on
    portraits: int  # rendered in all
    found: float  # share of the portraits in which the detector found a face
    enrolled_tests: int  # unseen portraits of the enrolled people
    recognised: float  # share of those that got their person's name
    stranger_tests: int  # portraits of strangers
    rejected: float  # share of those that got no name
    auc: float  # of verification, over pairs of all these unseen portraits
    threshold: float  # cosine from which a face is known
    seconds: dict[str, float]  # by stage

    def __str__(self) -> str:
        figures = [
            ("faces found by MTCNN", f"{self.found:.1%}", f"of {self.portraits:,} portraits"),
            ("enrolled people recognised", f"{self.recognised:.1%}", f"of {self.enrolled_tests} portraits"),
            ("strangers rejected", f"{self.rejected:.1%}", f"of {self.stranger_tests} portraits"),
            ("verification AUC", f"{self.auc:.4f}", "over pairs of these portraits"),
        ]
        times = [*self.seconds.items(), ("in all", sum(self.seconds.values()))]
        return "\n".join(
            [
                f"The int8 model, trained on {self.trained} people who do not exist, on others:",
                *(f"  {name:<28}{value:>8}  {note}" for name, value, note in figures),
                *(f"  {name:<28}{seconds:>6.0f} s" for name, seconds in times),
                f"{self.picture}: who is who, as it sees them",
                f"{self.out / README}: what is where, and what to try next",
            ]
        )


def demo(
    out: Path, people: int = 360, seed: int = 0, overwrite: bool = False, scale: Scale | None = None
) -> DemoResult:
    """Run the whole chain in ``out``, on rendered people.

    A stage that is finished is left as it is, so a run that was killed goes on where it stopped.

    Args:
        out: the folder to work in; everything made on the way stays there.
        people: how many to train on.
        seed: of the people and of the training.
        overwrite: begin again, whatever an earlier demo left in ``out``.
        scale: how many portraits, and of whom.

    Raises:
        FacetpuError: ``out`` cannot be written or holds something else, or a stage fails.
    """
    out = Path(out)
    scale = (scale or Scale())._replace(people=people)
    _open(out, {**scale._asdict(), "seed": seed}, overwrite)
    report = _read_report(out)
    if "result" in report:
        log.info("%s: is up to date", out)
        return _result(out, report)
    chain = _Chain(out, scale, seed, report.setdefault("seconds", {}))
    report["result"] = chain.run()
    write_text(out / REPORT, json.dumps(report, indent=1) + "\n", overwrite=True)
    return _result(out, report)


class _Chain:
    """The stages in their order, each timed."""

    def __init__(self, out: Path, scale: Scale, seed: int, seconds: dict[str, float]) -> None:
        self.out = out
        self.scale = scale
        self.seed = seed
        self.seconds = seconds

    def run(self) -> dict[str, Any]:
        """Run what is not finished; returns what is measured."""
        out, photos = self.out, self.out / "photos"
        config = _config(self.scale, self.seed)
        cut = AlignConfig(size=config.network.image_size)
        self._time("render", lambda: _render(photos, self.scale, self.seed))
        trained = self._time("align", lambda: align(photos / "training", out / "crops", cut))
        self._time("pack", lambda: pack(out / "crops", out / "records", seed=self.seed))
        self._time("train", lambda: train(config, out / "records", out / "run", resume=True))
        self._time("export", lambda: export(out / "run", out / "model"))
        known = self._time(
            "imprint", lambda: imprint(out / "model", photos / "enrolled", out / "known", FALSE_ACCEPTS)
        )
        seen = self._time("identify", lambda: identify(out / "known", [photos / "tests"]).photos)
        tested, verified = self._time("evaluate", lambda: _verify(out, photos, cut))

        answers = [judge(photo, {person.name for person in known.people}) for photo in seen]
        with new_file(out / PICTURE, overwrite=True) as file:
            write_png(file, draw_answers(photos / "enrolled", answers))
        _explain(out)
        enrolled = [answer.right for answer in answers if not answer.stranger]
        strangers = [answer.right for answer in answers if answer.stranger]
        portraits = trained.photos + tested.photos + self.scale.enrolled * self.scale.portraits
        found = trained.aligned + tested.aligned + sum(person.photos for person in known.people)
        return {
            "trained": self.scale.people,
            "portraits": portraits,
            "found": found / portraits,
            "enrolled_tests": len(enrolled),
            "recognised": float(np.mean(enrolled)),
            "stranger_tests": len(strangers),
            "rejected": float(np.mean(strangers)),
            "auc": verified.auc,
            "threshold": known.threshold,
        }

    def _time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Do ``work``; the time it takes when it is really done is kept for later runs."""
        log.info("-- %s", stage)
        start = time.perf_counter()
        result = work()
        self.seconds.setdefault(stage, round(time.perf_counter() - start, 1))
        write_text(self.out / REPORT, json.dumps({"seconds": self.seconds}, indent=1) + "\n", overwrite=True)
        return result


def _verify(out: Path, photos: Path, cut: AlignConfig) -> tuple[Alignment, Evaluation]:
    """Pairs of the tests, verified by the int8 base."""
    return align(photos / "tests", out / "test_crops", cut), evaluate(out / "model", out / "test_crops")


class Answer(NamedTuple):
    """What the model said of a portrait."""

    photo: Path
    person: str  # who it shows
    stranger: bool  # whether that person is not enrolled
    face: KnownFace | None  # the surest, if one was found
    right: bool


def judge(photo: PhotoFaces, known: set[str]) -> Answer:
    """Whether what was said of ``photo`` is right; the name of its folder is the person's.

    Args:
        photo: the faces found.
        known: the enrolled people's names.
    """
    person = photo.photo.parent.name
    face = photo.faces[0] if photo.faces else None
    stranger = person not in known
    right = face is not None and face.name == (None if stranger else person)
    return Answer(photo.photo, person, stranger, face, right)


def _open(out: Path, config: dict[str, Any], overwrite: bool) -> None:
    """Make ``out``, or go on in it where an earlier demo with the same settings began."""
    if finished(out, "demo", config, {}) and not overwrite:
        return
    check_new(out, overwrite)
    with new_folder(out, overwrite) as folder:
        write_manifest(folder, "demo", config, {})


def _config(scale: Scale, seed: int) -> TrainConfig:
    config = read_config(Path(str(files(__package__) / CONFIG))).model_copy(update={"seed": seed})
    return config.model_copy(update={"epochs": scale.epochs}) if scale.epochs else config


def _render(photos: Path, scale: Scale, seed: int) -> None:
    """Write the people to train on, those to enrol, and the tests: unseen portraits, and strangers."""
    config = {**scale._asdict(), "seed": seed}
    if finished(photos, "render", config, {}):
        log.info("%s: is up to date", photos)
        return
    cast = list(draw_people(scale.people + scale.enrolled + scale.strangers, seed).items())
    enrolled = dict(cast[scale.people : scale.people + scale.enrolled])
    last = range(scale.portraits, scale.portraits + scale.tests)
    with new_folder(photos) as folder:
        write_portraits(folder / "training", dict(cast[: scale.people]), range(scale.photos), seed)
        write_portraits(folder / "enrolled", enrolled, range(scale.portraits), seed)
        write_portraits(folder / "tests", dict(cast[scale.people :]), last, seed)
        write_manifest(folder, "render", config, {})


def draw_answers(enrolled: Path, answers: list[Answer]) -> np.ndarray:
    """A contact sheet with a column for each person: those enrolled, then what was said of whom.

    Args:
        enrolled: folder of the enrolled people's portraits.
        answers: of unseen portraits of theirs, and of strangers.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    people = people_under(enrolled)
    first = [Cell(read_image(portraits[0]), person) for person, portraits in people.items()]
    sections = [Section("Enrolled, each with a few portraits like this one", first)]
    for stranger, heading in ((False, "Portraits never seen before"), (True, "Strangers")):
        some = sorted((a for a in answers if a.stranger == stranger), key=lambda a: (a.photo.name, a.person))
        right = sum(answer.right for answer in some)
        sections.append(Section(f"{heading}: {right} of {len(some)} right", [_cell(a) for a in some]))
    return contact_sheet(sections, columns=len({a.person for a in answers if not a.stranger}))


def _cell(answer: Answer) -> Cell:
    image = read_image(answer.photo)
    if answer.face is None:
        return Cell(image, "no face found", GREY)
    caption = answer.face.name or "stranger"
    if not answer.right:
        caption += " (wrong)"
    colour = RED if not answer.right else BLUE if answer.stranger else GREEN
    return Cell(image, caption, colour, answer.face.box)


def _read_report(out: Path) -> dict[str, Any]:
    """What an earlier run with the same settings has measured so far."""
    path = out / REPORT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _result(out: Path, report: dict[str, Any]) -> DemoResult:
    return DemoResult(out=out, picture=out / PICTURE, seconds=report["seconds"], **report["result"])


def _explain(out: Path) -> None:
    write_text(out / README, EXPLANATION.format(out=out.name), overwrite=True)


EXPLANATION = """\
# What facetpu demo made

Nobody in these pictures exists; they are drawn by facetpu.

| path | made by | what it is |
|---|---|---|
| `photos/training/` | render | portraits of the people that the network was trained on |
| `photos/enrolled/` | render | portraits of people it never saw, from which it learnt them |
| `photos/tests/` | render | other portraits of those, and of strangers |
| `crops/` | align | the training faces, cut out and turned upright |
| `records/` | pack | the crops as TFRecords |
| `run/` | train | checkpoints; `tensorboard --logdir run/events` shows the curves |
| `model/` | export | all that a board needs: the int8 model, its float twin, the face detector |
| `known/` | imprint | the same model, knowing the enrolled people |
| `identified.png` | identify | who is who in `photos/tests/`, green right, blue a stranger, red wrong |
| `report.json` | demo | the table that the command prints |

Try next, from the folder above this one:

```
facetpu people {out}/known list
facetpu identify {out}/known {out}/photos/tests --draw named
facetpu inspect {out}/model/base.tflite
facetpu export {out}/run {out}/compiled --edgetpu
```

With photos of your own, begin at `facetpu align`: a network that was trained on drawings is no judge of
real faces.
"""
