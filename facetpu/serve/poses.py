"""Which way a head is turned, by its five landmarks: front, left, right, up, down.

Left and right are the person's own: who turns to their left is seen to turn to the right of the image.
How high a nose stands between eyes and mouth differs from face to face by more than a nod moves it, so
up and down count from where the person's own nose is with the chin level. Measured with MTCNN on 12
rendered people turned by 20 degrees: the turn is .22 to .63, and below .12 from the front. On 17 people
who nodded by 22 degrees the nose moves by .06 to .21 of the way up, and .03 to .18 down.
"""

from __future__ import annotations

import numpy as np

from ..quality import TURNED, turn

FRONT = 0.2  # the largest turn of a head that looks straight on
ASIDE = 0.22  # the least of one that looks aside; the largest is TURNED
NOD = 0.035  # by how much the nose is nearer to eyes or mouth than with the chin level

LEVEL = ("front", "left", "right")  # poses with the chin level

TASKS = {
    "front": "look straight into the camera",
    "left": "turn your head a little to your left",
    "right": "turn your head a little to your right",
    "up": "lift your chin a little",
    "down": "lower your chin a little",
}


def nose_height(landmarks: np.ndarray) -> float:
    """Where the nose stands on the way from the eyes (0) to the mouth (1).

    Args:
        landmarks: float [5, 2]: left eye, right eye, nose, left and right corner of the mouth.
    """
    left_eye, right_eye, nose, mouth_left, mouth_right = np.asarray(landmarks, np.float64)
    eyes = (left_eye + right_eye) / 2
    down = (mouth_left + mouth_right) / 2 - eyes
    return float((nose - eyes) @ down / max(down @ down, 1e-9))


def pose_fault(pose: str, landmarks: np.ndarray, level: float | None) -> str | None:
    """Why a face is not in ``pose``, as what to do about it; None where it is.

    Args:
        pose: of ``TASKS``.
        landmarks: float [5, 2], of the face.
        level: the same person's ``nose_height`` with the chin level; needed for ``up`` and ``down``.
    """
    aside = turn(landmarks)
    if pose in ("left", "right"):
        aside = aside if pose == "left" else -aside
        if aside < ASIDE:
            return f"turn your head further to your {pose}"
        return None if aside <= TURNED else "turn your head back a little"
    if abs(aside) > FRONT:
        return "turn your head back to the middle"
    if pose == "front" or level is None:
        return None
    nod = nose_height(landmarks) - level
    if pose == "up":
        return None if nod <= -NOD else "lift your chin further"
    return None if nod >= NOD else "lower your chin further"
