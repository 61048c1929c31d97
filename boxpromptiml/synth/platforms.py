"""What social networks do to a shared image, as far as it is known: shrink, then compress again.

No network publishes its figures, all change them, and some choose them image by image, so these are
stand-ins of fixed strength, not copies. That they resize and recompress is what Wu et al. work from
(Robust Image Forgery Detection over Online Social Network Shared Images, CVPR 2022), whose images
went through the real networks; use those where you have them. Sharpening and other filters are left
out, metadata is lost anyway, and an image is never enlarged.

Facebook: longer side at most 2048, by its photo team (S. Odio, quoted at blog.patyuen.com, 2010);
    quality 85, as read off its files (abrokenmold.net, 2010; dsp.stackexchange.com/q/74275, 2021).
Weibo: width at most 2048 and a quality near 80 of Photoshop's scale, by a photographer's uploads
    (qqhrsjcb.org.cn/pe/0_349702.html, 2016). That 80 stands for Pillow's 80 is our approximation.
WeChat: shorter side at most 1440, by about 100 uploads to Moments (github.com/Curzibn/Luban, README
    of version 2). That source gives bytes, not a quality: 70 is our approximation, below the others
    because WeChat costs detectors most (arXiv 2511.20359 and Wu et al. agree on that).
WhatsApp: longer side at most 1600 and a quality near 75, by a guide (shrinkto.com, 2026; two others
    say 70 to 80, and 50 to 60). Without its HD option.

Everything else is ours too: chroma at half resolution (Pillow's default), area averages to shrink.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from boxpromptiml.records import ImageArray
from boxpromptiml.synth.degrade import jpeg, rescale

PlatformName = Literal["facebook", "weibo", "wechat", "whatsapp"]
PLATFORMS: tuple[PlatformName, ...] = get_args(PlatformName)


@dataclass(frozen=True, slots=True)
class Platform:
    """A network's limits.

    Attributes:
        side: Which side is limited.
        limit: To how many pixels.
        quality: Of the JPEG compression, on Pillow's scale.
    """

    side: Literal["longer", "shorter", "width"]
    limit: int
    quality: int


_KNOWN: dict[PlatformName, Platform] = {
    "facebook": Platform("longer", 2048, 85),
    "weibo": Platform("width", 2048, 80),
    "wechat": Platform("shorter", 1440, 70),
    "whatsapp": Platform("longer", 1600, 75),
}


def share(image: ImageArray, platform: PlatformName) -> ImageArray:
    """The image (H, W, 3) as others see it; smaller where the network has a limit."""
    known = _KNOWN[platform]
    height, width = image.shape[:2]
    side = {"longer": max(height, width), "shorter": min(height, width), "width": width}[known.side]
    if side > known.limit:
        image = rescale(image, known.limit / side)
    return jpeg(image, known.quality)
