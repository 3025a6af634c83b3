"""The whole chain on real photos, command by command as a user gives them, with the time of each.

    scripts/real_photos.py WORK [--data DATA] [--config configs/small-cpu.yaml]

DATA (FACETPU_TEST_DATA unless given) holds ``pins/PERSON/*``, ``lfw/PERSON/*`` and ``lfw_pairs.txt``.
The network learns 66 people of pins; the other 12 are enrolled with 5 photos each and identified on
the rest; 500 people of LFW are the strangers; float and int8 are measured on LFW's pairs. WORK keeps
what is finished, so that a run that was stopped goes on; ``real_photos.json`` and ``real_photos.md``
there hold the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TRAINED_PEOPLE = 66
ENROLLED_PHOTOS = 5
STRANGERS = 500
COMMAND = [sys.executable, "-c", "from facetpu.cli import main; main()"]


class Chain:
    """Runs commands in ``work`` and remembers the answer of each that was done, and what it took.

    A step whose command changed is run again, and so are all that follow it.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.journal = work / "journal.json"
        self.steps: dict[str, Any] = {}
        self.before: dict[str, Any] = {}
        if self.journal.is_file():
            self.before = json.loads(self.journal.read_text(encoding="utf-8"))

    def run(self, step: str, *arguments: Any) -> Any:
        """The JSON that ``facetpu ARGUMENTS --json`` prints, from the journal if it was run before."""
        command = [str(argument) for argument in arguments]
        entry = self.before.get(step)
        if entry and entry["command"] == command:
            print(f"{step}: done before, in {entry['seconds']:.0f} s", flush=True)
        else:
            self.before = {}
            print(f"{step}: facetpu {' '.join(command[:6])}{' ...' if len(command) > 6 else ''}", flush=True)
            start, before = time.monotonic(), _core_seconds()
            done = subprocess.run(
                [*COMMAND, *command, "--json"], cwd=self.work, stdout=subprocess.PIPE, check=False
            )
            if done.returncode:
                sys.exit(
                    f"{step}: facetpu {command[0]} failed with {done.returncode}; mend it and run this again"
                )
            entry = {
                "command": command,
                "seconds": time.monotonic() - start,
                "core_seconds": _core_seconds() - before,
                "answer": json.loads(done.stdout),
            }
            print(f"{step}: {entry['seconds']:.0f} s", flush=True)
        self.steps[step] = entry
        self.journal.write_text(json.dumps({**self.before, **self.steps}, indent=1), encoding="utf-8")
        return entry["answer"]

    def seconds(self) -> dict[str, float]:
        """The time of each step, in their order."""
        return {step: round(entry["seconds"], 1) for step, entry in self.steps.items()}


def _core_seconds() -> float:
    """Processor time of all commands so far: what a core would have needed, whatever else ran beside them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def photos_of(person: Path) -> list[Path]:
    return sorted(photo for photo in person.iterdir() if not photo.name.startswith("."))


def link(photos: list[Path], folder: Path) -> None:
    """A folder of links to ``photos``: nothing real is copied."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        place = folder / photo.name
        if not place.is_symlink():
            place.symlink_to(photo)


def lay_out(data: Path, work: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Link the photos of those to train on and to enrol into ``work``.

    Returns:
        The photos to identify by person, and the strangers' photos.
    """
    people = sorted(folder for folder in (data / "pins").iterdir() if folder.is_dir())
    for person in people[:TRAINED_PEOPLE]:
        link(photos_of(person), work / "photos" / person.name)
    unseen = {}
    for person in people[TRAINED_PEOPLE:]:
        photos = photos_of(person)
        link(photos[:ENROLLED_PHOTOS], work / "people" / person.name)
        unseen[person.name] = photos[ENROLLED_PHOTOS:]
    others = sorted(folder for folder in (data / "lfw").iterdir() if folder.is_dir())
    return unseen, [photos_of(person)[0] for person in others[:: len(others) // STRANGERS][:STRANGERS]]


def largest_face(photo: dict[str, Any]) -> dict[str, Any] | None:
    """The face that the photo is of."""
    return max(
        photo["faces"],
        key=lambda face: (face["box"][2] - face["box"][0]) * (face["box"][3] - face["box"][1]),
        default=None,
    )


def judge(chain: Chain, unseen: dict[str, list[Path]], strangers: list[Path]) -> dict[str, Any]:
    """Identify the photos of the enrolled people and of the strangers.

    A photo is of its largest face. An enrolled person's photo without a face counts as not identified;
    a stranger's photo is refused where no face in it gets a name.
    """
    photos = [(name, photo) for name in unseen for photo in unseen[name]]
    paths = [photo for _, photo in photos]
    known = chain.run("identify", "identify", "known", *paths)["photos"]
    nearest = chain.run("identify without threshold", "identify", "known", *paths, "--threshold", -1)[
        "photos"
    ]
    refused = chain.run("identify strangers", "identify", "known", *strangers)["photos"]
    faces = [(name, largest_face(photo)) for (name, _), photo in zip(photos, known, strict=True)]
    tops = [(name, largest_face(photo)) for (name, _), photo in zip(photos, nearest, strict=True)]
    seen = [photo for photo in refused if photo["faces"]]
    count = len(photos)
    return {
        "enrolled people": len(unseen),
        "photos": count,
        "photos without a face": sum(face is None for _, face in faces),
        "top-1": sum(face is not None and face["name"] == name for name, face in tops) / count,
        "accepted and right": sum(face is not None and face["name"] == name for name, face in faces) / count,
        "accepted as another": sum(
            face is not None and face["name"] not in (None, name) for name, face in faces
        )
        / count,
        "threshold": next(face["threshold"] for _, face in faces if face),
        "strangers": len(seen),
        "strangers refused": sum(all(face["name"] is None for face in photo["faces"]) for photo in seen)
        / len(seen),
    }


def run_chain(data: Path, work: Path, config: Path) -> dict[str, Any]:
    chain = Chain(work)
    unseen, strangers = lay_out(data, work)
    pairs = data / "lfw_pairs.txt"
    aligned = chain.run("align pins", "align", "photos", "crops")
    aligned_lfw = chain.run("align lfw", "align", data / "lfw", "lfw")
    chain.run("pack", "pack", "crops", "records")
    chain.run("train", "train", config, "records", "run", "--resume")
    chain.run("freeze", "freeze", "run", "frozen", "--overwrite")
    chain.run("export", "export", "run", "model", "--calibration", "crops", "--overwrite")
    lfw = {
        name: chain.run(
            f"evaluate {name}", "evaluate", model, "lfw", "--pairs", pairs, "--out", f"lfw {name}"
        )
        for name, model in (
            ("float graph", "frozen"),
            ("float tflite", "model/base_float.tflite"),
            ("int8", "model/base.tflite"),
        )
    }
    chain.run("imprint", "imprint", "model", "people", "known", "--overwrite")
    identified = judge(chain, unseen, strangers)
    seconds = chain.seconds()
    counts = ("aligned", "no_face", "unreadable")
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "align pins": {count: aligned[count] for count in counts},
        "align lfw": {count: aligned_lfw[count] for count in counts},
        "lfw": lfw,
        "identify": identified,
        "seconds": seconds,
        "minutes in all": round(sum(seconds.values()) / 60, 1),
    }


def as_markdown(figures: dict[str, Any]) -> str:
    lfw, identified = figures["lfw"], figures["identify"]
    lines = ["| LFW, ten folds | " + " | ".join(lfw) + " |", "|---|" + "---|" * len(lfw)]
    rows = {
        "accuracy": lambda e: f"{e['accuracy']:.2%} ± {100 * e['std']:.2f}",
        "AUC": lambda e: f"{e['auc']:.4f}",
        "EER": lambda e: f"{e['eer']:.2%}",
        "TAR at FAR 1%": lambda e: f"{e['tar']['0.01']:.2%}",
        "TAR at FAR 0.1%": lambda e: f"{e['tar']['0.001']:.2%}",
        "pairs (left out)": lambda e: f"{e['pairs']:,} ({e['missing']})",
    }
    lines += [f"| {name} | " + " | ".join(map(show, lfw.values())) + " |" for name, show in rows.items()]
    lines += ["", "| int8, people never trained on | |", "|---|---|"]
    for name, value in identified.items():
        shown = (
            f"{value:.3f}" if name == "threshold" else f"{value:.1%}" if isinstance(value, float) else value
        )
        lines.append(f"| {name} | {shown} |")
    lines += ["", f"| step | seconds on {figures['machine']} |", "|---|---|"]
    lines += [f"| {step} | {seconds:.0f} |" for step, seconds in figures["seconds"].items()]
    lines.append(f"| **in all** | **{figures['minutes in all']:.1f} minutes** |")
    return "\n".join(lines) + "\n"


def parser_of(description: str) -> argparse.ArgumentParser:
    """Takes a folder to work in and the folder of photos."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for everything made, kept for the next run")
    parser.add_argument("--data", type=Path, default=os.environ.get("FACETPU_TEST_DATA"))
    return parser


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was given, ``work`` and ``data`` from the root, and ``work`` made."""
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of photos with --data or FACETPU_TEST_DATA")
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.work, arguments.data = arguments.work.resolve(), Path(arguments.data).resolve()
    return arguments


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/small-cpu.yaml"))
    arguments = read_arguments(parser)
    work = arguments.work
    figures = run_chain(arguments.data, work, arguments.config.resolve())
    (work / "real_photos.json").write_text(
        json.dumps(figures, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    (work / "real_photos.md").write_text(as_markdown(figures), encoding="utf-8")
    print(as_markdown(figures))


if __name__ == "__main__":
    main()
