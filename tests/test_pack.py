"""Crops to TFRecords."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from crops import write_crops
from PIL import Image

from facetpu.errors import FacetpuError
from facetpu.labels import read_labels
from facetpu.stages.pack import pack


def read(records: Path, split: str) -> list[dict[str, object]]:
    from facetpu.nets.tensorflow import tf

    examples = []
    for shard in sorted(records.glob(f"{split}-*")):
        for raw in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            features = tf.train.Example.FromString(raw).features.feature
            examples.append(
                {
                    key: (feature.bytes_list.value or feature.int64_list.value)[0]
                    for key, feature in features.items()
                }
            )
    return examples


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_records_hold_every_crop_once_with_slims_keys(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=3, photos=4)
    result = pack(crops, tmp_path / "records", shards=2, validation=0.25, seed=1)
    assert result._asdict() == {
        "records": tmp_path / "records",
        "people": 3,
        "train": 9,
        "validation": 3,
        "image_size": 32,
        "held_out": 0,
        "unlabelled": 0,
    }
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == [
        "labels.txt",
        "manifest.json",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
        "validation-00000-of-00001.tfrecord",
    ]
    people = read_labels(tmp_path / "records" / "labels.txt")
    assert people == ["person 0", "person 1", "person 2"]
    examples = read(tmp_path / "records", "train") + read(tmp_path / "records", "validation")
    assert len({example["image/filename"] for example in examples}) == 12
    for example in examples:
        name = example["image/filename"].decode()
        assert example == {
            "image/encoded": (crops / name).read_bytes(),
            "image/format": b"png",
            "image/class/label": people.index(name.split("/")[0]),
            "image/class/text": name.split("/")[0].encode(),
            "image/filename": name.encode(),
            "image/height": 32,
            "image/width": 32,
        }


def test_packing_again_gives_the_same_bytes_and_another_seed_another_order(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=3, photos=5)
    for name, seed in (("one", 4), ("two", 4), ("three", 5)):
        pack(crops, tmp_path / name, shards=2, validation=0.2, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "three")


def test_a_rerun_with_the_same_settings_does_nothing(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=3)
    first = pack(crops, tmp_path / "records")
    before = (tmp_path / "records").stat().st_mtime_ns
    assert pack(crops, tmp_path / "records") == first
    assert (tmp_path / "records").stat().st_mtime_ns == before
    with pytest.raises(FacetpuError, match=r"exists; .* --overwrite"):
        pack(crops, tmp_path / "records", seed=3)


def test_every_person_keeps_a_photo_to_train_on(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=4, photos=2)
    for photo in (crops / "person 0").glob("1*"):
        photo.unlink()
    result = pack(crops, tmp_path / "records", validation=0.5)
    assert (result.train, result.validation) == (4, 3)
    trained = Counter(example["image/class/label"] for example in read(tmp_path / "records", "train"))
    assert trained == {0: 1, 1: 1, 2: 1, 3: 1}


def test_there_are_no_more_shards_than_photos(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=2)
    pack(crops, tmp_path / "records", shards=8, validation=0)
    assert sorted(json.loads((tmp_path / "records/manifest.json").read_text())["shards"]) == [
        f"train-{index:05d}-of-00004.tfrecord" for index in range(4)
    ]


def test_crops_that_are_no_plain_png_are_written_anew(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=2)
    grey = Image.fromarray(np.full((32, 32), 77, np.uint8))
    grey.save(crops / "person 0" / "grey.png")
    pack(crops, tmp_path / "records", validation=0)
    (packed,) = [e for e in read(tmp_path / "records", "train") if b"grey" in e["image/filename"]]
    from facetpu.nets.tensorflow import tf

    assert np.array_equal(tf.io.decode_png(packed["image/encoded"]), np.full((32, 32, 3), 77))


def test_the_alignment_of_the_crops_goes_along(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=2)
    aligned = {"template": "box", "size": 32, "margin": 8}
    (crops / "manifest.json").write_text(json.dumps({"stage": "align", "alignment": aligned}))
    pack(crops, tmp_path / "records")
    assert json.loads((tmp_path / "records/manifest.json").read_text())["alignment"] == aligned


def test_bad_crops_are_told_in_one_line(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=2)
    photo = crops / "person 1" / "1.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FacetpuError, match=r"person 1/1.png: "):
        pack(crops, tmp_path / "records")
    Image.new("RGB", (40, 40)).save(photo)
    with pytest.raises(FacetpuError, match=r"is (40|32) px a side and .* (32|40); align all .* one --size"):
        pack(crops, tmp_path / "records")
    Image.new("RGB", (32, 30)).save(photo)
    with pytest.raises(FacetpuError, match=r"1.png: is 32x30 px and not square"):
        pack(crops, tmp_path / "records")
    shutil.rmtree(crops / "person 1")
    with pytest.raises(FacetpuError, match="holds one person, person 0; training needs at least two"):
        pack(crops, tmp_path / "records")
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]


def test_people_held_out_and_the_unknown_go_their_own_ways(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=6, photos=4)
    others = write_crops(tmp_path / "others", people=2, photos=3)
    extra = {"held_out": 0.34, "unknown": others, "unlabelled": others}
    result = pack(crops, tmp_path / "records", shards=2, validation=0.2, **extra)
    assert result._asdict() == {
        "records": tmp_path / "records",
        "people": 5,  # 4 and the unknown
        "train": 16 + 6 - 4 + 6,
        "validation": 4,
        "image_size": 32,
        "held_out": 8,
        "unlabelled": 6,
    }
    people = read_labels(tmp_path / "records" / "labels.txt")
    assert people[-1] == "unknown"
    splits = {split: read(tmp_path / "records", split) for split in ("train", "validation", "held_out")}
    aside = {example["image/class/text"].decode() for example in splits["held_out"]}
    assert sorted([*people[:-1], *aside]) == [f"person {number}" for number in range(6)]
    assert len({example["image/class/label"] for example in splits["held_out"]}) == 2
    names = Counter(example["image/filename"].decode() for split in splits.values() for example in split)
    strangers = [f"person {person}/{photo}.png" for person in range(2) for photo in range(3)]
    assert names == Counter(
        [
            *(f"person {person}/{photo}.png" for person in range(6) for photo in range(4)),
            *(f"{kind}/{name}" for kind in ("unknown", "unlabelled") for name in strangers),
        ]
    )
    for example in splits["train"] + splits["validation"]:
        kind = example["image/filename"].decode().split("/")[0]
        assert example["image/class/label"] == (-1 if kind == "unlabelled" else people.index(kind))
    manifest = json.loads((tmp_path / "records" / "manifest.json").read_text())
    assert manifest["unknown"] == 4


def test_an_empty_folder_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crops = write_crops(tmp_path / "crops", people=3, photos=2)
    (crops / "nobody yet").mkdir()
    (tmp_path / "empty").mkdir()
    assert pack(crops, tmp_path / "records", validation=0).people == 3
    assert "crops: 1 folders without a photo are left out, as nobody yet" in caplog.text
    with pytest.raises(FacetpuError, match="empty: holds no photo"):
        pack(crops, tmp_path / "more", unknown=tmp_path / "empty")
    (crops / "unknown").mkdir()
    shutil.copy(crops / "person 0" / "0.png", crops / "unknown")
    with pytest.raises(FacetpuError, match=r"unknown: has the name of the class of other faces; rename it"):
        pack(crops, tmp_path / "more", unknown=crops)
    with pytest.raises(FacetpuError, match=r"crops: holds one person, \w.*; training needs at least two"):
        pack(crops, tmp_path / "more", held_out=0.9)
