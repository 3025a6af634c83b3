from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetpu.errors import FacetpuError
from facetpu.evaluation.pair_files import unpack_bin
from facetpu.evaluation.pairs import Pairs, draw_pairs, read_pairs

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


def test_calfws_and_cplfws_two_lines_a_pair(tmp_path, pairs_file):
    """Flat folders of photos, ten folds of either kind whatever their order."""
    crops = tmp_path / "crops"
    crops.mkdir()
    lines = []
    for number in range(20):
        names = [f"Ana_B_{number}_{photo}.jpg" for photo in (1, 2)]
        same = int(number < 10)
        lines += [f"{name} {same}" for name in names]
        for name in names:
            (crops / name).with_suffix(".png").touch()
    pairs_file.write_text("\n".join(lines) + "\n")
    pairs = read_pairs(pairs_file, crops)
    assert pairs.same.tolist() == [True] * 10 + [False] * 10
    assert pairs.folds.tolist() == [*range(10), *range(10)]
    assert pairs.people is None
    assert named(pairs)[3] == ("Ana_B_3_1", "Ana_B_3_2", True, 3)


@pytest.mark.parametrize("line", ["imgs/{}.jpg imgs/{}.jpg {}", "{2} imgs/{0}.jpg imgs/{1}.jpg"])
def test_lists_with_a_label_as_agedb_is_handed_round(tmp_path, pairs_file, line):
    crops = tmp_path / "agedb"
    (crops / "imgs").mkdir(parents=True)
    for number in range(8):
        (crops / "imgs" / f"{number}.png").touch()
    pairs_file.write_text("".join(line.format(n, n + 4, n % 2) + "\n" for n in range(4)))
    assert named(read_pairs(pairs_file, crops)) == [
        ("0", "4", False, 0),
        ("1", "5", True, 0),
        ("2", "6", False, 5),
        ("3", "7", True, 5),
    ]


def test_cfps_protocol_folder(tmp_path):
    crops = tmp_path / "crops"
    for person in ("001", "002"):
        for kind in ("frontal", "profile"):
            (crops / person / kind).mkdir(parents=True)
            for photo in ("01", "02"):
                (crops / person / kind / f"{photo}.png").touch()
    split = tmp_path / "Protocol" / "Split" / "FP"
    for fold in ("01", "02"):
        (split / fold).mkdir(parents=True)
        (split / fold / "same.txt").write_text("1,1\n4,3\n" if fold == "01" else "2,2\n")
        (split / fold / "diff.txt").write_text("1,3\n")
    for kind, folder in (("F", "frontal"), ("P", "profile")):
        rows = [
            f"../Data/Images/{person}/{folder}/{photo}.jpg"
            for person in ("001", "002")
            for photo in ("01", "02")
        ]
        text = "".join(f"{number} {row}\n" for number, row in enumerate(rows, 1))
        (tmp_path / "Protocol" / f"Pair_list_{kind}.txt").write_text(text)
    pairs = read_pairs(split, crops)
    shown = [
        (pairs.crops[a].as_posix(), pairs.crops[b].as_posix(), bool(same), int(fold))
        for a, b, same, fold in zip(pairs.first, pairs.second, pairs.same, pairs.folds, strict=True)
    ]
    assert shown == [
        ("001/frontal/01.png", "001/profile/01.png", True, 0),
        ("002/frontal/02.png", "002/profile/01.png", True, 0),
        ("001/frontal/01.png", "002/profile/01.png", False, 0),
        ("001/frontal/02.png", "001/profile/02.png", True, 1),
        ("001/frontal/01.png", "002/profile/01.png", False, 1),
    ]
    assert len(set(pairs.people.tolist())) == 2
    (split / "01" / "same.txt").write_text("1,9\n")
    with pytest.raises(FacetpuError, match=r"same\.txt: '1,9' names no two photos"):
        read_pairs(split, crops)
    with pytest.raises(FacetpuError, match=r"Pair_list_.*is missing"):
        read_pairs(crops, crops)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 1\nb.jpg 1\nc.jpg 1\n", "has 3 lines, and a pair takes two"),
        ("a.jpg 1\nb.jpg 0\n", "line 1 and the next are not two photos with one number"),
        ("a.jpg b.jpg 1\nc.jpg d.jpg 2\n", "line 2 is not two photos and 1 or 0"),
        ("a.jpg b.jpg 1\n", "a.png is missing"),
    ],
)
def test_other_layouts_are_checked_too(crops, pairs_file, text, message):
    pairs_file.write_text(text)
    with pytest.raises(FacetpuError, match=message):
        read_pairs(pairs_file, crops)


def test_a_name_that_fits_two_crops_is_refused(tmp_path, pairs_file):
    for person in ("Ana", "Bo"):
        (tmp_path / "crops" / person).mkdir(parents=True)
        for photo in (1, 2):
            (tmp_path / "crops" / person / f"{photo}.png").touch()
    pairs_file.write_text("1.jpg 2.jpg 1\n")
    with pytest.raises(FacetpuError, match=r"1 may be Ana/1\.png or Bo/1\.png"):
        read_pairs(pairs_file, tmp_path / "crops")


def test_a_bin_holds_its_photos_and_runs_nothing(tmp_path):
    photos = [b"one", b"two", b"one", b"three"]
    path, folder = tmp_path / "lfw.bin", tmp_path / "photos"
    path.write_bytes(pickle.dumps((photos, [True, False])))
    folder.mkdir()
    pairs = unpack_bin(path, folder)
    assert len(list(folder.iterdir())) == 3
    read = [((folder / f"{a}.jpg").read_bytes(), (folder / f"{b}.jpg").read_bytes()) for a, b, _, _ in pairs]
    assert read == [(b"one", b"two"), (b"one", b"three")]
    assert [pair.same for pair in pairs] == [True, False]
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return (ran.mkdir, ())

    for damage in (
        pickle.dumps(Attack()),
        pickle.dumps((photos, [True])),
        b"",
        b"\x80\x04nothing",
        pickle.dumps(7),
    ):
        path.write_bytes(damage)
        with pytest.raises(FacetpuError, match=r"is no \.bin of insightface"):
            unpack_bin(path, folder)
    assert not ran.exists()
    with pytest.raises(FacetpuError, match="no such file"):
        unpack_bin(tmp_path / "none.bin", folder)
