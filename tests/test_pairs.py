from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetpu.errors import FacetpuError
from facetpu.pairs import Pairs, draw_pairs, read_pairs

LFW = """2	2
Ana	1	2
Bo	1	3
Ana	1	Bo	1
Ana	2	Cy	1
Bo	2	3
Ana	2	3
Bo	3	Cy	1
Ana	3	Bo	2
"""


def make_crops(folder: Path, sizes: dict[str, int]) -> Path:
    """Empty files in the place of crops: pairs are made of names alone."""
    for person, count in sizes.items():
        (folder / person).mkdir(parents=True)
        for number in range(1, count + 1):
            (folder / person / f"{person}_{number:04d}.png").touch()
    return folder


def named(pairs: Pairs) -> list[tuple[str, str, bool, int]]:
    return [
        (pairs.crops[a].stem, pairs.crops[b].stem, bool(same), int(fold))
        for a, b, same, fold in zip(pairs.first, pairs.second, pairs.same, pairs.folds, strict=True)
    ]


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return make_crops(tmp_path / "crops", {"Ana": 3, "Bo": 3, "Cy": 1})


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    return tmp_path / "pairs.txt"


def test_the_lfw_format_is_read_in_the_files_order(crops, pairs_file):
    pairs_file.write_text(LFW)
    pairs = read_pairs(pairs_file, crops)
    assert named(pairs) == [
        ("Ana_0001", "Ana_0002", True, 0),
        ("Bo_0001", "Bo_0003", True, 0),
        ("Ana_0001", "Bo_0001", False, 0),
        ("Ana_0002", "Cy_0001", False, 0),
        ("Bo_0002", "Bo_0003", True, 1),
        ("Ana_0002", "Ana_0003", True, 1),
        ("Bo_0003", "Cy_0001", False, 1),
        ("Ana_0003", "Bo_0002", False, 1),
    ]
    assert (pairs.missing, list(pairs.missing_crops)) == (0, [])
    assert pairs.people.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert len(pairs.crops) == 7
    assert pairs.crops[0] == Path("Ana/Ana_0001.png")


def test_names_may_have_spaces_between_tabs_and_files_windows_line_ends(tmp_path, pairs_file):
    crops = make_crops(tmp_path / "crops", {"Ana Silva": 2, "Zoë": 1})
    pairs_file.write_bytes("\ufeff1\t1\r\nAna Silva\t1\t2\r\nAna Silva\t2\tZoe\u0308\t1\r\n\r\n".encode())
    assert named(read_pairs(pairs_file, crops)) == [
        ("Ana Silva_0001", "Ana Silva_0002", True, 0),
        ("Ana Silva_0002", "Zoë_0001", False, 0),
    ]


def test_pairs_without_a_crop_are_left_out_and_named_once(crops, pairs_file, caplog):
    pairs_file.write_text(LFW)
    (crops / "Bo" / "Bo_0003.png").unlink()
    (crops / "Cy" / "Cy_0001.png").unlink()
    pairs = read_pairs(pairs_file, crops)
    assert named(pairs) == [
        ("Ana_0001", "Ana_0002", True, 0),
        ("Ana_0001", "Bo_0001", False, 0),
        ("Ana_0002", "Ana_0003", True, 1),
        ("Ana_0003", "Bo_0002", False, 1),
    ]
    assert (pairs.missing, pairs.missing_crops) == (4, ["Bo/Bo_0003", "Cy/Cy_0001"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{pairs_file}: 4 of 8 pairs left out for want of 2 crops in {crops}: Bo/Bo_0003, Cy/Cy_0001"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins 'empty', not with the number of folds"),
        ("Ana\t1\t2\n", "begins .*, not with the number of folds"),
        ("300\n", "begins '300', not with the number of folds"),
        ("0\t300\n", "begins .*, not with the number of folds"),
        ("10\t300\nAna\t1\t2\n", "has 1 pairs where its first line says 10 folds of 300 same"),
        ("1\t1\nAna\t1\t2\nAna\t1\n", "line 3 is neither"),
        ("1\t1\nAna\t1\ttwo\nAna\t1\tBo\t1\n", "line 2 is neither"),
        ("1\t1\nAna\t0\t2\nAna\t1\tBo\t1\n", "line 2 is neither"),
        ("1\t1\nAna\t2\t2\nAna\t1\tBo\t1\n", "line 2 pairs Ana_0002 with Ana_0002: one photo twice"),
        ("1\t1\nAna\t1\t2\nAna\t1\tAna\t2\n", "line 3 pairs Ana_0001 with Ana_0002: .* one person as two"),
        ("1\t1\nDi\t1\t2\nDi\t1\tBo\t1\n", "none of its 2 pairs has its crops .* Di/Di_0001.png is missing"),
    ],
)
def test_a_bad_pairs_file_is_one_clear_line(crops, pairs_file, text, message):
    pairs_file.write_text(text)
    with pytest.raises(FacetpuError, match=message) as error:
        read_pairs(pairs_file, crops)
    assert "\n" not in str(error.value)
    assert str(pairs_file) in str(error.value)


def test_a_missing_or_binary_pairs_file_is_one_clear_line(crops, pairs_file):
    with pytest.raises(FacetpuError, match="no such file"):
        read_pairs(pairs_file, crops)
    pairs_file.write_bytes(b"\x89PNG\xff")
    with pytest.raises(FacetpuError, match="no pairs file"):
        read_pairs(pairs_file, crops)


def test_with_twenty_people_the_folds_share_nobody(tmp_path):
    sizes = {f"p{number:02d}": 1 + number % 4 for number in range(40)}
    crops = make_crops(tmp_path / "crops", sizes)
    pairs = draw_pairs(crops)
    people_of_fold = [set(pairs.people[np.append(pairs.first[fold], pairs.second[fold])]) for fold in
                      (pairs.folds == number for number in range(10))]  # fmt: skip
    assert sum(map(len, people_of_fold)) == len(set.union(*people_of_fold))
    # Every same-person pair there is, and as many different ones.
    assert pairs.same.sum() == sum(count * (count - 1) // 2 for count in sizes.values())
    assert (~pairs.same).sum() == pairs.same.sum()


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=30),
    cap=st.integers(10, 60),
    seed=st.integers(0, 3),
)
def test_drawn_pairs_are_distinct_balanced_and_the_same_again(tmp_path_factory, sizes, cap, seed):
    folder = tmp_path_factory.mktemp("draw")
    crops = make_crops(folder, {f"p{number:02d}": count for number, count in enumerate(sizes)})
    try:
        pairs = draw_pairs(crops, cap, seed)
    except FacetpuError:
        assert sum(count * (count - 1) // 2 for count in sizes) < 2
        return
    listed = named(pairs)
    assert len({frozenset(pair[:2]) for pair in listed}) == len(listed)
    assert all(len({a, b}) == 2 for a, b, _, _ in listed)
    assert all((a.split("_")[0] == b.split("_")[0]) == same for a, b, same, _ in listed)
    assert 4 <= len(listed) <= 2 * cap
    for fold in range(pairs.folds.max() + 1):
        kinds = pairs.same[pairs.folds == fold]
        assert len(kinds) > 0
        assert kinds.sum() * 2 == len(kinds)
    assert named(draw_pairs(crops, cap, seed)) == listed


@pytest.mark.parametrize("sizes", [{"Ana": 9}, {"Ana": 1, "Bo": 1, "Cy": 1}, {"Ana": 2, "Bo": 1}])
def test_too_few_people_or_crops_to_pair_are_refused(tmp_path, sizes):
    with pytest.raises(FacetpuError, match=r"crops: \d crops of \d people are too few"):
        draw_pairs(make_crops(tmp_path / "crops", sizes))


def test_a_folder_without_people_is_refused(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(FacetpuError, match="no folder for each person"):
        draw_pairs(tmp_path)
    with pytest.raises(FacetpuError, match="no such folder"):
        draw_pairs(tmp_path / "nothing")


@pytest.mark.data
def test_the_official_lfw_pairs_are_six_thousand(data):
    pairs = read_pairs(data / "lfw_pairs.txt", data / "lfw")
    assert (len(pairs.same), pairs.same.sum(), len(pairs.crops), pairs.missing) == (6000, 3000, 7701, 0)
    assert [int(pairs.same[pairs.folds == fold].sum()) for fold in range(10)] == [300] * 10
