"""Portraits of people who do not exist, drawn with NumPy and OpenCV alone."""

from .folder import draw_people, write_people, write_portraits
from .person import Person
from .render import Portrait, render

__all__ = ["Person", "Portrait", "draw_people", "render", "write_people", "write_portraits"]
