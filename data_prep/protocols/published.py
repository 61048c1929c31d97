"""Published evaluation protocols: the datasets of training and test, and their sizes.

The numbers are the published ones. Our own choices are in the notes, which go into the header of
every manifest of a protocol.
"""

from typing import Literal, NamedTuple

from boxpromptiml.records import Split

ProtocolName = Literal["boxpromptiml", "benco", "cat-net"]


class Portion(NamedTuple):
    """The images of one dataset that belong to one split.

    Attributes:
        dataset: Name of its importer.
        split: The split that gets them.
        manipulated: Published number of forgeries; None: all of them, no number is published.
        authentic: Published number of authentic images; None: all there are; 0: they are not used.
        groups: Groups that a published list assigns to this split.
        listed_in: Source of that list.
    """

    dataset: str
    split: Split
    manipulated: int | None
    authentic: int | None = 0
    groups: frozenset[str] = frozenset()
    listed_in: str = ""


class Protocol(NamedTuple):
    """An evaluation protocol.

    Attributes:
        portions: Of the portions of one dataset, each but the last takes its number, the last takes
            the rest.
        notes: What readers of the results need to know.
    """

    portions: tuple[Portion, ...]
    notes: tuple[str, ...]


_CROSS_TESTS = (
    Portion("casia_v1", "test", 920),
    Portion("columbia", "test", 180, 183),
    Portion("coverage", "test", 100, 100),
    Portion("nist16", "test", 564),
)
_CROSS_NOTES = (
    "CASIA v1 is tested without its authentic images: some are in CASIA v2, which is trained on. "
    "MVSS-Net has others in their place (CASIAv1plus, from Corel), for which there is no importer.",
    "Authentic images of other test sets are there for image scores; pixel F1 is of forgeries.",
)
# The folders of CAT-Net's Splicing/data/IMD_valid_list.txt, which hold its 141 forgeries.
_CAT_NET_FOLDERS = """
1a1ogs 1a4zdz 1anq2a 1b3t1x 1b7ua0 1bbmcy 1bh7u3 1bl55t 1buvhq 1cgvx4 1cj6ta 1coha8 1cst9h 1ctk0g
1d0bba 1d84o7 1dcm0x 1djp9t 1dqd7u 1dtll6 1du8jo 1dxi3r 1dyeps 1dzfup 1dzjwl 1e2ic4 z28 z37
"""

PROTOCOLS: dict[ProtocolName, Protocol] = {
    "boxpromptiml": Protocol(
        portions=(
            Portion("casia_v2", "train", 5123),
            Portion("columbia", "test", 50),
            Portion("columbia", "train", 130),
            Portion("coverage", "test", 30),
            Portion("coverage", "train", 70),
            Portion("nist16", "test", 150),
            Portion("nist16", "train", 414),
            Portion("casia_v1", "test", 920),
            Portion("cocoglide", "test", 512),
            Portion("in_the_wild", "test", 201),
            Portion("korus", "test", 220),
            Portion("imd2020", "test", 2010),
        ),
        notes=(
            "The protocol of arXiv 2511.20359 (AAAI 2026): 5,737 forgeries to train on, no "
            "authentic images. Tests in distribution: CASIA v1, Columbia, Coverage, NIST16; out of "
            "distribution: CocoGlide, In the Wild, Korus, IMD2020.",
            "The paper gives the numbers, not the lists, and says nothing of validation.",
        ),
    ),
    "benco": Protocol(
        portions=(
            Portion("casia_v2", "train", 5123, 7491),
            *_CROSS_TESTS,
            Portion("imd2020", "test", 2010, 414),
        ),
        notes=(
            "IMDLBenCo's Protocol-MVSS: train on CASIA v2, test on other datasets.",
            *_CROSS_NOTES,
            "IMDLBenCo chooses its checkpoint on a test set; do not, and set --val_fraction.",
        ),
    ),
    "cat-net": Protocol(
        portions=(
            Portion("casia_v2", "train", 5123, 7491),
            Portion(
                "imd2020",
                "val",
                141,
                groups=frozenset(f"imd2020/{folder}" for folder in _CAT_NET_FOLDERS.split()),
                listed_in="Splicing/data/IMD_valid_list.txt of github.com/mjkwon2021/CAT-Net",
            ),
            Portion("imd2020", "train", 1869),
            Portion("tampcoco", "train", None),
            *_CROSS_TESTS,
        ),
        notes=(
            "CAT-Net also trains on FantasticReality and compRAISE, which have no importer.",
            "CAT-Net's lists hold 5,105 forgeries of CASIA v2, some of them for validation; here "
            "all that were imported are trained on.",
            "CAT-Net draws 1,869 images of every list anew for each epoch. Here an epoch is all "
            "there is, and most of it is tampCOCO.",
            *_CROSS_NOTES,
        ),
    ),
}
