"""Reports are one file each, in the house style, with nothing fetched and nothing unescaped."""

from __future__ import annotations

import base64
import io
import re

import jinja2
import numpy as np
import pytest
from PIL import Image

from facetpu import page
from facetpu.errors import FacetpuError


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A template beside the house style that shows a name and a picture."""
    (tmp_path / "one.html").write_text(
        '{% extends "base.html" %}{% block title %}{{ name }}{% endblock %}'
        '{% block content %}<img src="{{ face | picture }}">{% endblock %}'
    )
    house = jinja2.PackageLoader("facetpu")
    both = jinja2.ChoiceLoader([house, jinja2.FileSystemLoader(tmp_path)])
    monkeypatch.setattr(jinja2, "PackageLoader", lambda package: both)


def test_a_page_stands_alone_and_escapes_names(shelf):
    face = np.full((8, 8, 3), (200, 30, 30), np.uint8)
    text = page.render("one.html", name="<script>Ana", face=face)
    assert "&lt;script&gt;Ana · facetpu</title>" in text
    assert "<script" not in text
    assert re.findall(r"https?:|@import|url\(|<link", text) == []
    (encoded,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert np.abs(shown.astype(int) - face).max() < 8


def test_a_value_that_is_missing_is_an_error_and_leaves_no_file(shelf, tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(jinja2.UndefinedError, match="name"):
        page.write_page(path, "one.html", face=np.zeros((2, 2, 3), np.uint8))
    assert not path.exists()


def test_a_page_replaces_another_only_when_told(shelf, tmp_path):
    path = tmp_path / "report.html"
    face = np.zeros((2, 2, 3), np.uint8)
    page.write_page(path, "one.html", name="a", face=face)
    with pytest.raises(FacetpuError, match="exists"):
        page.write_page(path, "one.html", name="b", face=face)
    page.write_page(path, "one.html", overwrite=True, name="b", face=face)
    assert "<h1>b</h1>" in path.read_text(encoding="utf-8")


def test_a_picture_file_goes_in_as_it_is(tmp_path):
    path = tmp_path / "curve.png"
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(path)
    kind, data = page.picture(path).split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == path.read_bytes()
