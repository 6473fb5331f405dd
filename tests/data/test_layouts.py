"""Where images and masks are is found from the names of the files, where one reading fits; else it is asked."""

import shlex
from time import process_time

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from segnet.data import folder, layouts
from segnet.data.pairs import Layout
from segnet.data.splits import SPLITS, ByList, ByPattern
from segnet.errors import UserError

N = range(9)
CITY = "leftImg8bit/{0}/{1}/{1}_{2:06d}_leftImg8bit.png", "gtFine/{0}/{1}/{1}_{2:06d}_gtFine_labelIds.png"
WORDS = ["big_crack", "small_crack", "big_stain", "small_stain", "dent"]
THREE = ("train", "val", "test")
# Each tree: the images, and the mask or masks of each.
TREES = {
    "capitals": [(f"Images/{i}.jpg", f"Masks/{i}.png") for i in N],
    "image, label": [(f"image/{i:04d}.png", f"label/{i:04d}.png") for i in N],
    "imgs, gt": [(f"imgs/{i}.bmp", f"gt/{i}.bmp") for i in N],
    "annotations": [(f"images/x{i}.jpg", f"annotations/x{i}.png") for i in N],
    "_mask": [(f"images/{i}.jpg", f"masks/{i}_mask.png") for i in N],
    "_gt in one folder": [(f"data/{i}.jpg", f"data/{i}_gt.png") for i in N],
    "as DRIVE": [(f"images/{i}_training.tif", f"1st_manual/{i}_manual1.gif") for i in range(21, 30)],
    "as CrackForest": [(f"Images/{i:03d}.jpg", f"Masks/{i:03d}_label.PNG") for i in N],
    "as magnetic tiles": [(f"MT_{k}/Imgs/e_num_{i}.jpg", f"MT_{k}/Imgs/e_num_{i}.png") for k in "AB" for i in N],
    "as CamVid": [(f"{s}/{i}.png", f"{s}annot/{i}.png") for s in THREE for i in range(4)],
    "as Cityscapes": [
        (CITY[0].format(s, c, i), CITY[1].format(s, c, i)) for s in THREE[:2] for c in ("bonn", "ulm") for i in range(3)
    ],
    "as VOC": [(f"JPEGImages/2007_{i:06d}.jpg", f"SegmentationClass/2007_{i:06d}.png") for i in N],
    "as ISIC": [(f"ISIC_Input/ISIC_{i:07d}.jpg", f"ISIC_GroundTruth/ISIC_{i:07d}_segmentation.png") for i in N],
    "as DeepGlobe": [(f"train/{i * 37}_sat.jpg", f"train/{i * 37}_mask.png") for i in N],
    "beside": [(f"{i}.jpg", f"{i}.png") for i in N],
    "beside, one suffix": [(f"{i}.png", f"{i}_mask.png") for i in N],
    "suffix in capitals": [(f"images/{i}.JPG", f"masks/{i}.PNG") for i in N],
    "several suffixes": [(f"images/{i}.{'JPG' if i % 3 else 'png'}", f"masks/{i}.png") for i in N],
    "masks of several suffixes": [(f"images/{i}.jpg", f"masks/{i}.{'png' if i % 2 else 'bmp'}") for i in N],
    "another beginning": [(f"images/img_{i:03d}.jpg", f"masks/mask_{i:03d}.png") for i in N],
    "both ends": [(f"all/img_{i:03d}_rgb.png", f"all/lab_{i:03d}_seg.png") for i in N],
    "words": [(f"images/{w}.jpg", f"labels/{w}.png") for w in WORDS],
    "nested": [(f"images/a{i % 2}/b{i % 3}/{i:03d}.png", f"masks/a{i % 2}/b{i % 3}/{i:03d}.png") for i in N],
    "the same names": [(f"images/{c}/f_{i:06d}.jpg", f"masks/{c}/f_{i:06d}.png") for c in "abc" for i in range(3)],
    "train/images": [(f"{s}/images/{i}.jpg", f"{s}/masks/{i}.png") for s in THREE for i in range(4)],
    "images/train": [(f"images/{s}/{i}.jpg", f"masks/{s}/{i}.png") for s in THREE for i in range(4)],
    "train_images": [(f"{s}_images/{i}.png", f"{s}_masks/{i}.png") for s in THREE for i in range(4)],
    "objects in folders": [(f"images/{i}.png", [f"masks/{i}/{j}.png" for j in range(1 + i % 3)]) for i in N],
    "objects in one folder": [(f"images/{i}.png", [f"masks/{i}_{j}.png" for j in range(1 + i % 3)]) for i in N],
    "as Data Science Bowl": [
        (f"s/{i}ab/images/{i}ab.png", [f"s/{i}ab/masks/{j}{i}.png" for j in range(1 + i % 3)]) for i in N
    ],
    "a folder for each image": [(f"{i:03d}/image.png", f"{i:03d}/mask.png") for i in N],
    "as labelme_json_to_dataset": [(f"image{i}_json/img.png", f"image{i}_json/label.png") for i in N],
    "one image in two formats": [("Images/0.png", "Masks/0.png"), *((f"Images/{i}.jpg", f"Masks/{i}.png") for i in N)],
    "numbers padded with zeros": [(f"images/{i}.jpg", f"masks/{i:03d}.png") for i in range(5, 14)],
    "numbers no longer padded": [(f"a/im_{i:04d}.png", f"b/{i}_x.png") for i in range(5, 14)],
    "numbers in one folder": [(f"set1/photo{i}.jpg", f"set1/seg{i:02d}.png") for i in N],
    "three": [(f"Images/{i}.jpg", f"Masks/{i}.png") for i in range(3)],
    "one": [("Images/a.jpg", "Masks/a.png")],
    "spaces": [(f"my images/part {i}.png", f"my masks/part {i}.png") for i in N],
    "brackets": [(f"images [a]/p[{i}].png", f"masks [a]/p[{i}].png") for i in N],
    "braces": [(f"im{{1}}/p{i}.png", f"ma{{1}}/p{i}.png") for i in N],
    "a name of two suffixes": [(f"images/{i}.jpg", f"masks/{i}.jpg.png") for i in N],
    "numbers that tell": [(f"set/{i}_1.png", f"set/{i}_2.png") for i in N],
}  # fmt: skip


def photo(root, name, i):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


def mask(root, name, i):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[2 : 4 + i % 9, 3:9] = 255
    Image.fromarray(pixels).save(path)


def make(root, tree):
    """Write a tree; which masks each image has."""
    pairs = {}
    for i, (image, masks) in enumerate(tree):
        photo(root, image, i)
        pairs[image] = sorted([masks] if isinstance(masks, str) else masks)
        for name in pairs[image]:
            mask(root, name, i)
    return pairs


def pairs_of(root, found):
    images = [found.images] if isinstance(found.images, str) else found.images
    layout = Layout(root, images, found.masks, match=found.match)
    return {i: sorted(m.relative_to(root).as_posix() for m in layout.masks_of(i)) for i in layout.list_images()}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_every_image_gets_its_mask_and_no_other(tmp_path, tree):
    written = make(tmp_path, tree)
    assert pairs_of(tmp_path, layouts.find(tmp_path)) == written


@pytest.mark.parametrize("name", ["as CamVid", "train/images", "images/train", "train_images"])
def test_folders_called_train_val_and_test_are_the_splits(tmp_path, name):
    written = make(tmp_path, TREES[name])
    split = layouts.find(tmp_path).split
    assert split.by == "pattern"
    found = ByPattern(split.train, split.val, split.test)(tmp_path, sorted(written))
    assert {s: set(images) for s, images in found.items()} == {s: {i for i in written if s in i} for s in SPLITS}


@pytest.mark.parametrize(
    "names", [("training", "validation", "testing"), ("train", "valid", "test"), ("Train", "Val", "Test")]
)
def test_other_words_for_the_splits(tmp_path, names):
    make(tmp_path, [(f"{s}/img/{i}.jpg", f"{s}/lab/{i}.png") for s in names for i in range(3)])
    split = layouts.find(tmp_path).split
    assert (split.train, split.val, split.test) == tuple(f"{name}/*" for name in names)


def test_without_a_folder_for_validation_a_share_of_the_training_images_is_it(tmp_path):
    written = make(tmp_path, [(f"{s}/img/{i}.jpg", f"{s}/lab/{i}.png") for s in ("train", "test") for i in range(20)])
    found = layouts.find(tmp_path)
    assert "none for validation: 15% of the training images" in found.told[0]
    parts = ByPattern(found.split.train, found.split.val, found.split.test)(tmp_path, sorted(written))
    assert len(parts["val"]) == 3
    assert set(parts["train"]) | set(parts["val"]) == {i for i in written if i.startswith("train/")}
    assert not set(parts["train"]) & set(parts["val"])
    assert set(parts["test"]) == {i for i in written if i.startswith("test/")}


def test_test_images_without_masks_are_left_out_and_told(tmp_path):
    written = make(
        tmp_path, [(f"{s}/images/{i}.jpg", f"{s}/masks/{i}.png") for s in ("train", "val") for i in range(4)]
    )
    for i in range(3):
        photo(tmp_path, f"test/images/{i}.jpg", 90 + i)
    found = layouts.find(tmp_path)
    assert pairs_of(tmp_path, found) == written
    assert found.told == ["3 images of test have no masks and are left out"]


@pytest.mark.parametrize("folder", ["", "ImageSets/Segmentation"])
def test_lists_are_the_split(tmp_path, folder):
    make(tmp_path, TREES["_mask"])
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, part in (("train", range(6)), ("val", range(6, 9))):
        (tmp_path / folder / f"{name}.txt").write_text("\n".join(map(str, part)))
    split = layouts.find(tmp_path).split
    assert split.by == "list"
    assert ByList(split.train, split.val, split.test)(tmp_path, [f"images/{i}.jpg" for i in N])["val"] == [
        "images/6.jpg", "images/7.jpg", "images/8.jpg"
    ]  # fmt: skip


def test_images_and_masks_as_ever_come_before_any_other_folder(tmp_path):
    written = make(tmp_path, [(f"images/{i}.png", f"masks/{i}.png") for i in N])
    for i in N:
        mask(tmp_path, f"edges/{i}.png", i)
        photo(tmp_path, f"overlays/{i}.png", 50 + i)
    assert pairs_of(tmp_path, layouts.find(tmp_path)) == written


@pytest.mark.parametrize("more", ["edges/{}.png", "masks/{}_edges.png", "second/{}_b.gif"])
def test_of_several_layouts_each_can_be_pasted(tmp_path, more):
    tree = [(f"imgs/{i}.png", f"labels/{i}.png") for i in N]
    first = make(tmp_path, tree)
    second = {f"imgs/{i}.png": [more.format(i)] for i in N}
    for i in N:
        mask(tmp_path, more.format(i), i)
    with pytest.raises(UserError, match="2 layouts fit its files; choose one") as error:
        layouts.find(tmp_path)
    ways = []
    for way in str(error.value).partition("choose one: ")[2].partition("; if ")[0].split("; or "):
        given = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(shlex.split(way))}
        masks, images = given["data.masks"], given["data.images"]
        masks = {str(k): str(v) for k, v in masks.items()} if isinstance(masks, dict) else masks
        ways.append(pairs_of(tmp_path, layouts.find(tmp_path, images, masks, given.get("data.match"))))
    assert sorted(ways, key=str) == sorted([first, second], key=str)


def test_masks_belong_to_the_images_in_folders_called_as_theirs(tmp_path):
    written = make(tmp_path, [(f"test/ko/{i}.png", f"ground_truth/ko/{i}.png") for i in N])
    for i in N:
        photo(tmp_path, f"train/ok/{i}.png", 50 + i)
    found = layouts.find(tmp_path)
    assert pairs_of(tmp_path, found) == written
    assert found.told == ["not used are 9 image files (train/ok (9)); where they belong to the set, name data.images"]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of Pillow, about the file that is cut off
@pytest.mark.parametrize("tree", ["images/{}.png masks/{}.tif", "Bilder/{}.png gt/{}.tif"])
@pytest.mark.parametrize("which", [0, 5])
@pytest.mark.parametrize("fault", ["empty", "cut", "pages", "nan", "photograph"])
def test_a_mask_that_is_damaged_hides_the_others_from_nobody(tmp_path, tree, which, fault):
    image, mask_name = tree.split()
    written = make(tmp_path, [(image.format(i), mask_name.format(i)) for i in range(24)])
    bad = tmp_path / mask_name.format(which)
    if fault in ("empty", "cut"):
        bad.write_bytes(bad.read_bytes()[: 0 if fault == "empty" else 60])
    elif fault == "pages":
        Image.open(bad).save(tmp_path / "two.tif", save_all=True, append_images=[Image.new("L", (16, 16))])
        (tmp_path / "two.tif").rename(bad)
    elif fault == "nan":
        Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(bad)
    else:
        photo(tmp_path, mask_name.format(which), 99)
    assert pairs_of(tmp_path, layouts.find(tmp_path)) == written


def test_photographs_are_no_masks(tmp_path):
    for i in N:
        photo(tmp_path, f"day/{i}.png", i)
        photo(tmp_path, f"night/{i}.png", 20 + i)
    with pytest.raises(UserError, match=r"18 image files \(day \(9\), night \(9\)\) do not show .*; name them: 'da"):
        layouts.find(tmp_path)


def test_what_is_named_narrows_what_is_found(tmp_path):
    written = make(tmp_path, [(f"photos/{i}.png", f"labels/{i}.png") for i in N])
    for i in N:
        photo(tmp_path, f"overlays/{i}.png", 50 + i)
    with pytest.raises(UserError, match="2 layouts fit"):
        layouts.find(tmp_path)
    assert pairs_of(tmp_path, layouts.find(tmp_path, images="photos/*")) == written
    (tmp_path / "overlays").rename(tmp_path / ".overlays")  # hidden
    assert pairs_of(tmp_path, layouts.find(tmp_path)) == written
    assert pairs_of(tmp_path, layouts.find(tmp_path, masks={"photos/": "labels/"})) == written


def test_large_folders_take_time_in_proportion(tmp_path):
    photo(tmp_path, ".photo.png", 0)
    mask(tmp_path, ".mask.png", 0)
    written = {}
    for i in range(5000):
        names = f"d{i % 20:02d}/{i:06d}.png", f"d{i % 20:02d}/{i:06d}_mask.png"
        written[names[0]] = [names[1]]
        for name, file in zip(names, (".photo.png", ".mask.png"), strict=True):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).hardlink_to(tmp_path / file)
    start = process_time()
    assert pairs_of(tmp_path, layouts.find(tmp_path)) == written
    assert process_time() - start < 5  # one; where every file is compared with all of its folder, 15


@pytest.mark.parametrize(("folder", "names"), [("", ("Train", "Val")), ("splits", ("train", "valid"))])
def test_lists_under_other_names(tmp_path, folder, names):
    make(tmp_path, TREES["_mask"])
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, part in zip(names, (range(6), range(6, 9)), strict=True):
        (tmp_path / folder / f"{name}.txt").write_text("\n".join(map(str, part)))
    split = layouts.find(tmp_path).split
    assert [split.train, split.val] == [f"{folder}/{name}.txt".lstrip("/") for name in names]


def test_lists_for_training_and_test_leave_validation_a_share(tmp_path):
    make(tmp_path, TREES["_mask"])
    for name, part in (("train", range(7)), ("test", range(7, 9))):
        (tmp_path / f"{name}.txt").write_text("\n".join(map(str, part)))
    found = layouts.find(tmp_path)
    assert ["15% of the training images" in line for line in found.told] == [True]
    files = [f"images/{i}.jpg" for i in N]
    parts = ByList(found.split.train, found.split.val, found.split.test)(tmp_path, files)
    assert parts["test"] == files[7:]
    assert len(parts["val"]) == 1
    assert sorted(parts["train"] + parts["val"]) == files[:7]


@pytest.mark.parametrize("content", ["8\nx", ""])
def test_lists_that_are_not_taken_are_told(tmp_path, content):
    make(tmp_path, TREES["_mask"])
    (tmp_path / "train.txt").write_text("\n".join(map(str, range(6))))
    (tmp_path / "val.txt").write_text(content)
    found = layouts.find(tmp_path)
    assert found.split is None
    (line,) = found.told
    assert "split by train.txt, val.txt is not taken" in line
    assert ("'x' names no image" if content else "empty") in line


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".lst"])
def test_lists_in_tables_are_the_split_and_text_files_come_first(tmp_path, suffix):
    make(tmp_path, TREES["_mask"])
    names = [f"images/{i}.jpg" for i in N]
    tab = "\t" if suffix == ".tsv" else ","
    parts = {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]}
    for part, listed in parts.items():
        rows = [f"image{tab}mask", *(f"{name}{tab}x" for name in listed)] if suffix != ".lst" else listed
        (tmp_path / f"{part}{suffix}").write_text("\n".join(rows))
    found = layouts.find(tmp_path)
    assert found.told == []
    assert found.split.train == f"train{suffix}"
    assert ByList(found.split.train, found.split.val, found.split.test)(tmp_path, names) == parts
    (tmp_path / "val.txt").write_text(names[-2])
    assert layouts.find(tmp_path).split.val == "val.txt"


@pytest.mark.parametrize(
    ("files", "named"),
    [(["train.json", "val.json"], "train.json, val.json"), (["test.txt"], "test.txt"), (["val.xlsx"], "val.xlsx")],
)
def test_what_may_state_a_split_and_is_not_read_is_told(tmp_path, files, named):
    make(tmp_path, TREES["_mask"])
    for name in files:
        (tmp_path / name).write_text("[]")
    found = layouts.find(tmp_path)
    assert found.split is None
    assert found.told == [f"the split by {named} is not taken: train.txt with val.txt or test.txt is read"]


def test_folders_of_splits_beside_another_are_told(tmp_path):
    make(tmp_path, [(f"{s}/img/{i}.jpg", f"{s}/lab/{i}.png") for s in ("train", "val", "more") for i in range(4)])
    found = layouts.find(tmp_path)
    assert found.split is None
    (line,) = found.told
    assert line.startswith("the split by folders (train, val) is not taken: more holds images too; name it, ")


def test_thumbnails_are_told_from_images_by_the_size_of_the_masks(tmp_path):
    written = make(tmp_path, TREES["capitals"])
    for i in N:
        (tmp_path / "Small").mkdir(exist_ok=True)
        with Image.open(tmp_path / f"Images/{i}.jpg") as file:
            file.resize((file.width // 2, file.height // 2)).save(tmp_path / f"Small/{i}.jpg")
    assert pairs_of(tmp_path, layouts.find(tmp_path)) == written


def test_links_to_folders_are_followed_once(tmp_path):
    make(tmp_path / "there", TREES["capitals"])
    (tmp_path / "here/more").mkdir(parents=True)
    (tmp_path / "here/more/round").symlink_to(tmp_path / "here")
    for name in ("Images", "Masks"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "there" / name)
    found = layouts.find(tmp_path / "here")
    assert (found.images, found.masks) == ("Images/*", "Masks/{stem}.png")


def test_masks_of_classes_can_be_made_one_by_what_the_error_says(tmp_path):
    make(tmp_path / "my set", [(f"images/im{w}.jpg", f"masks/im{w}_crack.png") for w in "abc"])
    for i, w in enumerate("abc"):
        mask(tmp_path / "my set", f"masks/im{w}_stain.png", 9 + i)
    with pytest.raises(UserError, match="2 layouts fit") as caught:
        layouts.find(tmp_path / "my set")
    assert "; choose one: 'data.images=" in str(caught.value).partition("import_labels")[0]
    command = shlex.split(str(caught.value).rpartition("import_labels.py ")[2].partition(" makes it")[0])
    assert command == [f"input={tmp_path}/my set", f"output={tmp_path}/my set_set"]


@pytest.mark.parametrize("both", [False, True])
def test_a_folder_for_each_class_is_read_by_what_is_said(tmp_path, both):
    tree = [(f"images/{i}.jpg", f"masks/{'crack' if i % 2 else 'stain'}/{i}.png") for i in N]
    written = make(tmp_path, tree)
    if both:  # each image has a mask of each class
        for i in N:
            mask(tmp_path, f"masks/{'stain' if i % 2 else 'crack'}/{i}.png", i)
            written[f"images/{i}.jpg"] = [f"masks/crack/{i}.png", f"masks/stain/{i}.png"]
        said = layouts.find(tmp_path).told[0]
    else:
        with pytest.raises(UserError, match="2 layouts fit") as caught:
            layouts.find(tmp_path)
        said = str(caught.value)
    way = said.partition("the masks of a class: ")[2].partition("; if ")[0]
    given = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(shlex.split(way))}
    assert given["data/mask"] == "by_path"
    assert given["data.classes"] == ["background", "crack", "stain"]
    assert pairs_of(tmp_path, layouts.find(tmp_path, masks=given["data.masks"])) == written


def test_nothing_is_said_to_be_found_where_nothing_is(tmp_path):
    make(tmp_path, [("images/a.png", "other/b.png")])
    for root in (tmp_path, tmp_path / "images"):
        _, lines = folder.settle({"root": str(root), "images": "images/*", "masks": None, "classes": None})
        assert lines == []


def test_a_tree_as_of_mvtec_is_read_whole_and_divided_by_hash(tmp_path):
    good = [(f"{place}/good/{i:03d}.png", []) for place in ("train", "test") for i in N]
    kinds = [(f"test/{k}/{i:03d}.png", f"ground_truth/{k}/{i:03d}_mask.png") for k in ("cut", "hole") for i in N]
    written = make(tmp_path, good + kinds)
    data, lines = folder.settle(
        {"root": str(tmp_path), **dict.fromkeys(("images", "masks", "mask", "split", "classes"))}
    )
    found = Layout(tmp_path, data["images"], data["masks"], defect_free=data["defect_free"])
    images = found.list_images()
    assert images == sorted(written)
    assert {i: [m.relative_to(tmp_path).as_posix() for m in found.masks_of(i)] for i in images} == written
    assert data["split"]["_target_"].endswith("ByHash")
    assert "divided by hash" in lines[-1]


# Sets with good images that have no mask, some called as defective ones are: the defective with their masks, the good.
GOOD = {
    "beside, as Real-IAD": ([(f"NG/{i}.jpg", f"NG/{i}.png") for i in N], [f"OK/{i}.jpg" for i in N]),
    "as DAGM": (
        [(f"C{c}/{i}.PNG", f"C{c}/Label/{i}_label.PNG") for c in "12" for i in N],
        [f"C{c}/{i}.PNG" for c in "12" for i in range(9, 30)],
    ),
    "as VisA": (
        [(f"{c}/Images/Anomaly/{i:03d}.jpg", f"{c}/Masks/Anomaly/{i:03d}.png") for c in "ab" for i in N],
        [f"{c}/Images/Normal/{i:04d}.jpg" for c in "ab" for i in N],
    ),
    "as VisA, one category": (
        [(f"Images/Anomaly/{i:03d}.jpg", f"Masks/Anomaly/{i:03d}.png") for i in N],
        [f"Images/Normal/{i:04d}.jpg" for i in N],
    ),
    "kinds as MVTec AD": (
        [(f"test/{k}/{i}.png", f"ground_truth/{k}/{i}.png") for k in ("cut", "hole") for i in N],
        [f"test/good/{i}.png" for i in N],
    ),
    "good and bad called alike": (
        [(f"images/bad/{i}.png", f"masks/bad/{i}.png") for i in N], [f"images/good/{i}.png" for i in N],
    ),
    "and within a split": (
        [(f"test/Normal/ko/{i}.png", f"mask/Normal/ko/{i}.png") for i in N], [f"test/Normal/ok/{i}.png" for i in N],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_image_gets_no_mask_of_another_and_is_not_left_out(tmp_path, name):
    tree, good = GOOD[name]
    written = make(tmp_path, tree)
    for i, image in enumerate(good):
        photo(tmp_path, image, 100 + i)
    found = pairs_of(tmp_path, layouts.find(tmp_path))
    assert {image: [m for m in masks if (tmp_path / m).exists()] for image, masks in found.items()} == {
        **written, **{image: [] for image in good}
    }  # fmt: skip
    assert not {mask for image in good for mask in found[image]} & {m for masks in written.values() for m in masks}
    folders = {tuple(part for part in ("OK", "Normal", "good") if part in m) for i in good for m in found[i]}
    assert folders == {tuple(part for part in ("OK", "Normal", "good") if part in i) for i in good}  # theirs, if any


def test_image_files_that_the_rule_does_not_reach_are_told(tmp_path):
    make(tmp_path, [(f"Defects/{i}.png", f"Masks/{i}_mask.png") for i in N])
    assert layouts.find(tmp_path).told == []
    for i in N:
        photo(tmp_path, f"Good/cloth/{100 + i}.png", 50 + i)
    told = "not used are 9 image files (Good/cloth (9)); where they belong to the set, name data.images"
    assert layouts.find(tmp_path).told == [told]
    found = layouts.find(tmp_path, ["Defects/*", "Good/**/*"], "Masks/{stem}_mask.png")
    assert len(pairs_of(tmp_path, found)) == 18
    assert found.told == []


@pytest.mark.parametrize("name", ["{}.json", "lable/{}.xml", "labels/{}.txt"])
@pytest.mark.parametrize("folder", ["photos", "images"])
def test_files_that_may_hold_labels_are_told_with_the_command_that_reads_them(tmp_path, name, folder):
    for i in N:
        photo(tmp_path, f"{folder}/{i}.png", i)
        label = tmp_path / name.format(i)
        label.parent.mkdir(exist_ok=True)
        label.write_text("")
    (tmp_path / "readme.txt").write_text("")
    way = f"9 files (such as {name.format(0)}) may hold labels; python src/import_labels.py input={tmp_path} output="
    if folder == "images":  # which says where the images are
        assert layouts.find(tmp_path).told[0].startswith(way)
        return
    with pytest.raises(UserError) as error:
        layouts.find(tmp_path)
    assert f"; {way}" in str(error.value)
    assert "; else name them: 'data.images=<glob>'" in str(error.value)
