"""Tell who is in a photo, on a Raspberry Pi: LiteRT, NumPy and Pillow, without facetpu.

    pip install ai-edge-litert numpy pillow
    python3 faces.py enrol alice alice-1.png alice-2.png
    python3 faces.py identify somebody.png
    python3 faces.py erase alice

For a Python before 3.10: pip install tflite-runtime "numpy<2" pillow. The pictures are crops as facetpu align
writes them; ``align`` cuts one out of a photo, given the face's five landmarks. The people are kept in
people.tsv beside this file, as embeddings, not as pictures.
"""

from __future__ import annotations

import base64
import math
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

FALSE_ACCEPTS = 0.01  # share of strangers who may be taken for somebody
FEWEST_STRANGERS = 10
# Left eye, right eye, nose, left and right corner of the mouth in a crop of 112 pixels; left as one sees it.
LANDMARKS = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)


class Recogniser:
    """Knows people by their faces.

    Attributes:
        size: side of a crop in pixels.
        people: of each person's name the embeddings of their faces.
    """

    def __init__(self, folder: Path, people: Path) -> None:
        """Open the model in ``folder``, and the file of people, which need not be there yet."""
        self._runner = Interpreter(str(folder / "recogniser.tflite"), num_threads=4)
        self._runner.allocate_tensors()
        (self._image,) = self._runner.get_input_details()
        self._probability, self._embedding = self._runner.get_output_details()
        self.size = int(self._image["shape"][1])
        self.labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
        self._header, self._strangers = _read(folder / "strangers.tsv")
        self._file = people
        self.people: dict[str, list[np.ndarray]] = {}
        header, known = _read(people) if people.exists() else (self._header, [])
        if header != self._header:
            raise ValueError(f"{people}: is of another model; enrol everybody again")
        for name, embedding in known:
            self.people.setdefault(name, []).append(embedding)

    def embed(self, crop: Image.Image) -> np.ndarray:
        """The embedding of a face: float32 [D], of length 1."""
        scale, zero_point = self._embedding["quantization"]
        row = (self._run(crop, self._embedding) - zero_point) * np.float32(scale)
        return row / np.linalg.norm(row)

    def classify(self, crop: Image.Image) -> tuple[str, float]:
        """Who of the people that the model was trained on it is, and how likely; strangers look like some."""
        scale, zero_point = self._probability["quantization"]
        row = (self._run(crop, self._probability) - zero_point) * scale
        return self.labels[row.argmax()], float(row.max())

    def identify(self, embedding: np.ndarray) -> tuple[str | None, float]:
        """Whose face it is, None for a stranger; and the cosine to the nearest person."""
        if not self.people:
            return None, 0.0
        cosines = {name: float(_mean(faces) @ embedding) for name, faces in self.people.items()}
        nearest = max(cosines, key=cosines.__getitem__)
        return nearest if cosines[nearest] >= self.threshold() else None, cosines[nearest]

    def threshold(self) -> float:
        """The cosine that FALSE_ACCEPTS of the strangers reach: the more people, the higher it must be."""
        others = [embedding for name, embedding in self._strangers if name not in self.people]
        if not self.people or len(others) < FEWEST_STRANGERS:
            return float(self._header.split()[-1])  # of two faces
        means = np.array([_mean(faces) for faces in self.people.values()])
        scores = np.sort((np.array(others) @ means.T).max(axis=1).astype(float))[::-1]
        passing = int(FALSE_ACCEPTS * len(scores) + 1e-9)
        if passing:
            asked = (scores[passing - 1] + scores[passing]) / 2
        else:  # too few to see one in so many: the tail of a Gumbel distribution
            scale = scores.std() * math.sqrt(6) / math.pi
            tail = math.log(-math.log1p(-FALSE_ACCEPTS))
            asked = scores.mean() - np.euler_gamma * scale - scale * tail
        return float(min(max(asked, scores[passing] + 1e-7), 1))

    def enrol(self, name: str, embeddings: list[np.ndarray]) -> None:
        """Add faces of a person, who may be new."""
        if not name or not name.isprintable():
            raise ValueError(f"{name!r}: is no name")
        self._keep({**self.people, name: [*self.people.get(name, []), *embeddings]})

    def erase(self, name: str) -> None:
        """Forget a person."""
        if name not in self.people:
            raise ValueError(f"nobody is called {name!r}")
        self._keep({other: faces for other, faces in self.people.items() if other != name})

    def _run(self, crop: Image.Image, output: dict) -> np.ndarray:
        if crop.size != (self.size, self.size):
            raise ValueError(f"a crop has {self.size} x {self.size} pixels, not {crop.width} x {crop.height}")
        self._runner.set_tensor(self._image["index"], np.asarray(crop.convert("RGB"))[None])
        self._runner.invoke()
        return self._runner.get_tensor(output["index"]).ravel().astype(np.float32)

    def _keep(self, people: dict[str, list[np.ndarray]]) -> None:
        """Write ``people`` down; then they are those who are known."""
        lines = [self._header]
        for name, faces in people.items():
            lines += [f"{name}\t{base64.b64encode(face.astype('<f4').tobytes()).decode()}" for face in faces]
        new = self._file.with_suffix(".new")
        only_mine = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(only_mine, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._file)  # whole or not at all
        self.people = people


def align(photo: Image.Image, landmarks: np.ndarray, size: int) -> Image.Image:
    """The crop of a face in an RGB photo by its ``landmarks`` [5, 2], brought to their places."""
    here, there = landmarks @ (1, 1j), LANDMARKS @ (1, 1j) * (size / 112)
    centred = here - here.mean()
    turn = np.vdot(centred, there) / np.vdot(centred, centred)  # least squares in complex numbers
    shift = there.mean() - turn * here.mean()
    x, y = np.meshgrid(np.arange(size + 1), np.arange(size + 1))
    where = (x + 1j * y - shift) / turn  # of the crop's pixels in the photo
    # What shrinks to less than a half is averaged first.
    step = int(1 / abs(turn)) or 1
    left, right = math.floor(where.real.min()) - 2 * step, math.ceil(where.real.max()) + 2 * step
    top, bottom = math.floor(where.imag.min()) - 2 * step, math.ceil(where.imag.max()) + 2 * step
    window = np.asarray(photo.crop((left, top, right, bottom)), np.float32)  # black beyond the photo
    height, width = len(window) // step, window.shape[1] // step
    squares = window[: height * step, : width * step].reshape(height, step, width, step, 3)
    pixels = squares.mean(axis=(1, 3))
    where = (where[:size, :size] + (0.5 - left) + (0.5 - top) * 1j) / step
    x, y = where.real - 0.5, where.imag - 0.5
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    across, down = (x - column).astype(np.float32)[..., None], (y - row).astype(np.float32)[..., None]
    upper = pixels[row, column] + (pixels[row, column + 1] - pixels[row, column]) * across
    row += 1
    lower = pixels[row, column] + (pixels[row, column + 1] - pixels[row, column]) * across
    return Image.fromarray((upper + (lower - upper) * down + np.float32(0.5)).astype(np.uint8))


def _mean(faces: list[np.ndarray]) -> np.ndarray:
    mean = np.sum(faces, axis=0)
    return mean / np.linalg.norm(mean)


def _read(path: Path) -> tuple[str, list[tuple[str, np.ndarray]]]:
    """The first line, which is the model's; and on each other line a name and an embedding."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"{path}: is empty; delete it and enrol everybody again")
    pairs = [line.split("\t") for line in lines[1:]]
    return lines[0], [(name, np.frombuffer(base64.b64decode(code), "<f4")) for name, code in pairs]


def _embed(recogniser: Recogniser, path: str) -> np.ndarray:
    """The embedding of the crop in a file."""
    try:
        with Image.open(path) as image:
            return recogniser.embed(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow raises them
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _run(command: str, arguments: list[str]) -> None:
    folder = Path(__file__).resolve().parent
    recogniser = Recogniser(folder, folder / "people.tsv")
    if command == "enrol" and len(arguments) > 1:
        name, *crops = arguments
        recogniser.enrol(name, [_embed(recogniser, path) for path in crops])
    elif command == "erase" and len(arguments) == 1:
        recogniser.erase(arguments[0])
    elif command == "identify" and arguments:
        for path in arguments:
            who, cosine = recogniser.identify(_embed(recogniser, path))
            print(f"{path}: {who or 'a stranger'} ({cosine:.3f}, threshold {recogniser.threshold():.3f})")
    else:
        sys.exit(__doc__)


def main() -> None:
    """Enrol, identify or erase as the command line says."""
    command, *arguments = sys.argv[1:] or ["help"]
    try:
        _run(command, arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"faces.py: {error}")


if __name__ == "__main__":
    main()
