"""The compiled averaging of areas against OpenCV's and NumPy's, and the detector without it."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import facetpu.mtcnn.areas as room
from facetpu.image import resize_area

SOURCE = Path(room.__file__).with_name("_area.c")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The room with ``_area.c`` compiled, whether or not it was when facetpu was installed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    library = tmp_path_factory.mktemp("area") / "area.so"
    flags = ["-O3", "-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library), "-lm"], check=True)
    before, room.compiled = room.compiled, room.load_compiled(library)
    yield
    room.compiled = before


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_levels_have_the_bits_that_opencv_gives_bytes(compiled: None) -> None:
    cv2 = pytest.importorskip("cv2")
    for height, width in [(250, 250), (153, 153), (100, 60), (77, 131), (96, 96), (12, 500)]:
        image = photo(height, width)
        for scale in (1.0, 0.6, 0.5, 0.4254, 0.25, 1 / 9):
            rows, columns = math.ceil(height * scale), math.ceil(width * scale)
            expected = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
            with pytest.MonkeyPatch.context() as patch:
                np.testing.assert_array_equal(room.level(image, rows, columns), expected)
                np.testing.assert_array_equal(room.level(image.astype(np.float32), rows, columns), expected)
                patch.setattr(room, "compiled", None)
                np.testing.assert_array_equal(room.level(image.astype(np.float32), rows, columns), expected)


@given(
    st.integers(12, 90),
    st.integers(12, 90),
    st.lists(st.tuples(st.integers(-9, 85), st.integers(-9, 85), st.integers(0, 70)), min_size=1, max_size=9),
    st.sampled_from([24, 48]),
)
def test_crops_are_the_same_compiled_or_not(
    compiled: None, height: int, width: int, squares: list[tuple[int, int, int]], side: int
) -> None:
    pytest.importorskip("cv2")
    boxes = np.array([(x, y, x + size, y + size) for x, y, size in squares], float)
    boxes = boxes.clip(None, 4 * max(height, width))  # no further than sound networks place any
    image = photo(height, width)
    found = room.crops(image.astype(np.float32), boxes, side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "compiled", None)
        np.testing.assert_array_equal(found, room.crops(image.astype(np.float32), boxes, side))
        np.testing.assert_array_equal(found, room.crops(image, boxes, side))


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_any_area_shrinks_as_numpy_shrinks_it(
    compiled: None, height: int, width: int, draw: st.DataObject
) -> None:
    image = photo(height, width).astype(np.float32)
    target = draw.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    found = room._shrink(image, np.array([[0, 0, width, height]], np.int32), *target)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facetpu.image.cv2", None)
        np.testing.assert_allclose(found, resize_area(image, *target), atol=1e-3)
