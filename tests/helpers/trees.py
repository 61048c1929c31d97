"""Public datasets in miniature: their true trees, names and known errors, with generated pixels.

Every manipulated image is bright exactly where it is manipulated and dark elsewhere, in a place
that depends on its name. So whoever reads a mask can be held against the image itself: a wrong pair
or a wrong polarity shows.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
_DARK, _BRIGHT = 60, 200


def region(key: str, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Where the image of `key` is manipulated: a rectangle aligned to JPEG's blocks."""
    number = zlib.crc32(key.encode())
    x, y = 8 * (number % 4), 8 * (number // 4 % 2)
    mask = np.zeros((height, width), bool)
    mask[y : y + 16, x : x + 8 * (1 + number // 8 % 2)] = True
    return mask


def photo(path: Path, bright: np.ndarray | None = None) -> None:
    """An image that is bright where it is manipulated."""
    if bright is None:
        bright = np.zeros((HEIGHT, WIDTH), bool)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 9, (*bright.shape, 3))
    pixels = np.where(bright[..., None], _BRIGHT, _DARK) + noise
    save(path, Image.fromarray(pixels.astype(np.uint8)))


def mask(path: Path, white: np.ndarray, mode: str = "L", low: int = 0, high: int = 255) -> None:
    """A mask of two levels."""
    levels = np.where(white, high, low).astype(np.uint8)
    save(path, Image.fromarray(levels).convert(mode))


def save(path: Path, picture: Image.Image) -> None:
    """Write by the name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 92} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    picture.save(path, **options)


def casia_v1(root: Path) -> None:
    tp, gt = root / "Modified Tp" / "Tp", root / "CASIA 1.0 groundtruth"
    for kind, stem, mode in (
        ("Sp", "Sp_D_CNN_A_art0024_ani0032_0268", "L"),
        ("Sp", "Sp_D_NNN_A_cha0084_sec0061_0369", "L"),
        ("Sp", "Sp_D_NRN_A_sec0011_cha0011_0542", "RGB"),
        ("CM", "Sp_S_NND_A_nat0054_nat0054_0189", "RGBA"),
        ("CM", "Sp_S_CNN_A_pla0005_pla0005_0400", "L"),
    ):
        where = region(stem)
        photo(tp / kind / f"{stem}.jpg", where)
        mask(gt / kind / f"{stem}_gt.png", where, mode)
    levels = np.where(region("Sp_D_NNN_A_cha0084_sec0061_0369"), 255, 0).astype(np.uint8)
    levels[0, :4] = 1, 20, 60, 254
    save(gt / "Sp" / "Sp_D_NNN_A_cha0084_sec0061_0369_gt.png", Image.fromarray(levels))
    odd = region("Sp_S_CNN_A_pla0005_pla0005_0400")[:-10]
    mask(gt / "CM" / "Sp_S_CNN_A_pla0005_pla0005_0400_gt.png", odd)
    photo(tp / "Sp" / "Sp_D_NRN_A_cha0011_sec0011_0542.jpg")  # the one that never had a mask
    for stem in ("Au_ani_0032", "Au_pla_0001", "Au_sec_0011"):
        photo(root / "Au" / f"{stem}.jpg")
    (gt / "Splicing_groundtruth_list.txt").write_text("a list\n")
    (gt / "FileNameCorrection.xlsx").write_bytes(b"a table")


def casia_v2(root: Path) -> None:
    tp, gt = root / "CASIA2" / "Tp", root / "CASIA 2 Groundtruth"
    for name in (
        "Tp_D_CND_M_N_ani00018_sec00096_00138.tif",
        "Tp_D_NRN_S_N_sec00096_cha00003_00472.jpg",
        "Tp_D_NRD_M_B_arc20062_xxx00000_02482.tif",
        "Tp_D_NRD_M_B_art20001_xxx00000_02483.tif",
        "Tp_S_CNN_S_N_cha0003_cha00003_00323.tif",
    ):
        stem = name.partition(".")[0]
        photo(tp / name, region(stem))
        mask(gt / f"{stem}_gt.png", region(stem))
    odd = "Tp_D_NRD_S_N_cha10002_cha10001_20094"
    photo(tp / f"{odd}.jpg", region(odd))
    mask(gt / f"{odd}_gt3.png", region(odd))
    old, new = "Tp_D_NNN_S_N_nat00024_nat00024_11039", "Tp_S_NNN_S_N_nat00024_nat00024_11039"
    photo(tp / f"{old}.jpg", region(old))  # before namtpham's correction of the names
    mask(gt / f"{new}_gt.png", region(old))
    turned = "Tp_D_CNN_M_N_sec00011_cha00085_11227"
    photo(tp / f"{turned}.jpg", region(turned))
    mask(gt / f"{turned}_gt.png", np.rot90(region(turned)))
    photo(tp / "Tp_S_NNN_S_N_pla00008_pla00008_00547.tif")  # no mask
    mask(gt / "Tp_S_NNN_S_N_ind00073_ind00073_01360_gt.png", region("x"))  # no image
    for name in ("Au_ani_00018.jpg", "Au_pla_30029.bmp", "Au_nat_00024.tif"):
        photo(root / "CASIA2" / "Au" / name)
    (root / "CASIA2" / "Tp" / "Thumbs.db").write_bytes(b"what Windows leaves")


def columbia(root: Path) -> None:
    for stem in ("canong3_canonxt_sub_01", "nikond70_kodakdcs330_sub_30"):
        where = region(stem)
        photo(root / "4cam_splc" / f"{stem}.tif", where)
        colours = np.where(where[..., None], (0, 200, 0), (200, 0, 0)).astype(np.uint8)
        colours[:, 20:28] = np.where(where[:, 20:28, None], (0, 255, 0), (255, 0, 0))  # the edge
        save(root / "4cam_splc" / "edgemask" / f"{stem}_edgemask.jpg", Image.fromarray(colours))
    for stem in ("canonxt_38_sub_09", "canonxt_38_sub_01", "kodakdcs330_02_sub_01"):
        photo(root / "4cam_auth" / f"{stem}.tif")
    (root / "README.txt").write_text("Columbia")


def coverage(root: Path) -> None:
    for number in (1, 2, 41):
        where = region(str(number))
        photo(root / "image" / f"{number}t.tif", where)
        photo(root / "image" / f"{number}.tif")
        where = where if number != 41 else where[:-1]
        mask(root / "mask" / f"{number}forged.tif", where, low=120, high=130)
        for kind in ("copy", "paste"):
            mask(root / "mask" / f"{number}{kind}.tif", region(kind))


def nist16(root: Path, delimiter: str = "|") -> None:
    root /= "NC2016_Test0601"
    rows = [["TaskID", "ProbeFileName", "IsTarget", "ProbeMaskFileName", "BaseFileName"]]
    rows[0] += [f"IsManipulationType{kind}" for kind in ("Splice", "CopyClone", "Removal")]
    for number, target, shared, base, kinds in (
        ("0313", "Y", "4424", "world/NC2016_0001.jpg", "NNY"),
        ("7152", "Y", "5388", "world/NC2016_0002.jpg", "YNN"),
        ("9415", "Y", "5388", "world/NC2016_0002.jpg", "YYN"),
        ("1111", "N", "", "", "NNN"),
    ):
        probe = f"probe/NC2016_{number}.jpg"
        path = f"reference/manipulation/mask/NC2016_{shared}.png"
        where = region(shared) if shared else None
        photo(root / probe, where)
        if where is not None:
            mask(root / path, ~where)  # black is manipulated
        rows.append(["manipulation", probe, target, path if shared else "", base, *kinds])
    rows.append(["manipulation", "probe/NC2016_2222.jpg", "Y", "reference/x.png", "", *"YNN"])
    removed = "probe/NC2016_3333.JPG"
    photo(root / removed, region("3333"))
    mask(root / "reference" / "remove" / "mask" / "NC2016_3333.png", ~region("3333"))
    named = "reference/removal/mask/NC2016_3333.png"
    rows.append(["manipulation", removed.replace("JPG", "jpg"), "Y", named, "", *"NNY"])
    photo(root / "world" / "NC2016_0001.jpg")
    mask(root / "reference" / "splice" / "mask" / "NC2016_2490.png", region("z"))
    table = root / "reference" / "manipulation" / "NC2016-manipulation-ref.csv"
    table.write_text("".join(delimiter.join(row) + "\n" for row in rows), encoding="utf-8-sig")


def imd2020(root: Path) -> None:
    for folder, name, suffix in (
        ("1a1ogs", "c8tf5mq_0", "png"),
        ("1a1ogs", "c97qv4m_0", "jpg"),
        ("z28", "00065_fake", "jpg"),
        ("z14", "00030_fake", "jpg"),
    ):
        where = region(folder + name)
        photo(root / folder / f"{name}.{suffix}", where)
        where = where if folder != "z14" else where[:, :-3]
        mask(root / folder / f"{name}_mask.png", where, high=90)
    for folder, name in (("1a1ogs", "1a1ogs_orig"), ("z28", "00065_orig"), ("z14", "00030_orig")):
        photo(root / folder / f"{name}.jpg")


def cocoglide(root: Path) -> None:
    for kind, number in (("dining table", 114871), ("teddy bear", 563758), ("tv", 3501)):
        where = region(str(number))
        photo(root / "fake" / f"glide_inpainting_val2017_{number}_up.png", where)
        mask(root / "mask" / f"{kind}_{number}_mask.png", where)
        photo(root / "real" / f"{kind}_{number}.png")


def korus(root: Path) -> None:
    for camera, stem in (("Canon_60D", "DPP0012"), ("Nikon_D7000", "DPP0012"), ("Sony_A57", "r1")):
        where = region(camera + stem)
        photo(root / camera / "tampered-realistic" / f"{stem}.TIF", where)
        photo(root / camera / "pristine" / f"{stem}.TIF")
        levels = where.astype(np.uint8) * 255
        levels[:12][where[:12]] = 127  # collateral
        save(root / camera / "ground-truth" / f"{stem}.PNG", Image.fromarray(levels))
    (root / "readme.md").write_text("Korus")


def in_the_wild(root: Path) -> None:
    for stem in ("bull", "obama 2"):
        photo(root / "label_in_wild" / "images" / f"{stem}.jpg", region(stem))
        mask(root / "label_in_wild" / "masks" / f"{stem}.png", region(stem), high=90)


def dso1(root: Path) -> None:
    for number in ("01", "02"):
        where = region(number)
        photo(root / "DSO-1" / f"splicing-{number}.png", where)
        mask(root / "DSO-1-Fake-Images-Masks" / f"splicing-{number}.png", ~where)
        photo(root / "DSO-1" / f"normal-{number}.png")


def defacto(root: Path) -> None:
    for kind, stem in (
        ("splicing_1", "0_000000195755"),
        ("splicing_2", "0_000000195755"),  # numbered anew in every part
        ("copymove", "9_000000581177"),
        ("inpainting", "0_000000000260"),
    ):
        where = region(kind + stem)
        photo(root / f"{kind}_img" / "img" / f"{stem}.tif", where)
        mask(root / f"{kind}_annotations" / "probe_mask" / f"{stem}.jpg", where)
        other = "inpaint_mask" if kind == "inpainting" else "donor_mask"
        mask(root / f"{kind}_annotations" / other / f"{stem}.tif", region("donor"))
    photo(root / "authentic" / "COCO_train2014_000000195755.jpg")


def tampcoco(root: Path) -> None:
    for subset, end in (("sp", "_RT-27.5"), ("cm", ""), ("bcm", "_RT4.7_RS0.85")):
        first, second = "000000256513", "000000015303" if subset == "sp" else "000000256513"
        where = region(subset)
        photo(root / f"{subset}_images" / f"81_{first}.jpg_{second}.jpg{end}.jpg", where)
        path = root / f"{subset}_masks" / f"81_{first}.png_{second}.png{end}.png"
        mask(path, where, low=1, high=2)
    jpeg = "000000256513_aligned_Q97.jpg"
    again = f"81_{jpeg}_{jpeg}_RT4.7_RS0.85_aligned_Q97.jpg"
    photo(root / "bcmc_images" / again, region("bcm"))
    empty = "68_000000393354.jpg_000000249813.jpg.jpg"
    (root / "sp_images" / empty).write_bytes(b"")
    mask(root / "sp_masks" / empty.replace(".jpg", ".png"), region("e"))


def autosplice(root: Path) -> None:
    for photograph, forgeries in (("1001", ("_0", "_1")), ("1002", ("_0",))):
        where = region(photograph)
        mask(root / "Mask" / f"{photograph}_mask.png", where, high=90)
        photo(root / "Authentic" / f"{photograph}.jpg")
        for quality in (100, 75):
            for end in forgeries:
                photo(root / f"Forged_JPEG{quality}" / f"{photograph}{end}.jpg", where)


def misd(root: Path) -> None:
    for name, objects in (
        ("Sp_D_ani_00010_cha_00065_nat_00093_146", 2),
        ("Sp_D_ani_00010_art_00002_147", 1),
        ("Sp_D_sec_00001_sec_00002_148", 2),
    ):
        folder = root / "Ground Truth Masks" / name
        parts = [region(f"{name}{number}") for number in range(objects)]
        photo(folder / "images" / f"{name}.png", np.any(parts, axis=0))
        for number, part in enumerate(parts):
            odd = part[:-8] if (name.endswith("148") and number) else part
            mask(folder / "masks" / f"{name}_{number}.png", odd)
        photo(root / "Dataset" / "Sp" / f"{name}.png", np.any(parts, axis=0))  # the same again
    for stem in ("Au_ani_00010", "Au_pla_00001"):
        photo(root / "Dataset" / "Au" / f"{stem}.jpg")


TREES: dict[str, Callable[[Path], None]] = {
    tree.__name__: tree
    for tree in (
        autosplice,
        casia_v1,
        casia_v2,
        cocoglide,
        columbia,
        coverage,
        defacto,
        dso1,
        imd2020,
        in_the_wild,
        korus,
        misd,
        nist16,
        tampcoco,
    )
}
