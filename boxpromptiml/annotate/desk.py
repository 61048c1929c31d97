"""What the page asks for, without HTTP: photographs, their layers, and saving."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le, MaxLen
from pydantic import ConfigDict, TypeAdapter, ValidationError

from boxpromptiml.annotate.layers import Layer, Layers, picture
from boxpromptiml.annotate.photographs import Album, Photograph
from boxpromptiml.annotate.storage import DECIMALS, Annotation, Storage, Verdict
from boxpromptiml.annotate.summary import counts, seconds_text
from boxpromptiml.errors import UserError
from boxpromptiml.io.orientation import stored_box, upright_box
from boxpromptiml.records import Box

_MAX_BOXES = 200
_MAX_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Change:
    """What the page saves of a photograph.

    Attributes:
        revision: Of the annotation that the change was made to; another one was saved meanwhile if
            it differs.
        verdict: What the annotator said; None for nothing yet.
        boxes: x0 y0 x1 y1 in pixels of the upright picture.
        finished: Whether the annotator is done with the photograph.
        seconds: Time spent on it since the last change.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )

    revision: int
    verdict: Verdict | None
    boxes: Annotated[list[tuple[float, float, float, float]], MaxLen(_MAX_BOXES)]
    finished: bool
    seconds: Annotated[float, Ge(0), Le(_MAX_SECONDS)]


_CHANGE = TypeAdapter(Change)


@dataclass(frozen=True)
class Desk:
    """Serves the page; methods may be called from any thread.

    Attributes:
        album: The photographs, in the order in which they are shown.
        layers: Makes pseudo-masks and maps.
        storage: Where annotations are saved; None if they are not.
        annotator: Who is annotating.
        settings: Facts that the page shows or needs, such as the name of the teacher.
    """

    album: Album
    layers: Layers
    storage: Storage | None
    annotator: str
    settings: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """What the page needs at its start, as values of JSON.

        Returns:
            The settings of the page, `saves` (whether anything is saved), and `photographs`, each
            with `name`, `verdict` and `finished`.
        """
        said = {} if self.storage is None else self.storage.annotations()
        photographs = []
        for number in range(len(self.album)):
            name = self.album[number].name
            one = said.get(name, Annotation())
            photographs.append({"name": name, "verdict": one.verdict, "finished": one.finished})
        return self.settings | {"saves": self.storage is not None, "photographs": photographs}

    def photograph(self, number: int) -> dict[str, Any]:
        """What the page needs to show photograph `number`, as values of JSON.

        Returns:
            `name`, `width` and `height` of the upright picture, `revision` (see `save`), and the
            fields of its `Annotation`, with boxes x0 y0 x1 y1 in pixels of the upright picture.

        Raises:
            RejectedInput: If it cannot be read.
        """
        self.album.pixels(number)  # so that the page says at once what cannot be shown
        photograph = self.album[number]
        height, width = photograph.shown_size
        facts = {"name": photograph.name, "width": width, "height": height, "revision": 0}
        annotation = Annotation()
        if self.storage is not None:
            annotation, facts["revision"] = self.storage.get(photograph.name)
        boxes = [
            upright_box(box, photograph.size, photograph.orientation) for box in annotation.boxes
        ]
        return facts | asdict(annotation) | {"boxes": boxes}

    def picture(self, number: int, part: tuple[float, float, float, float] | None = None) -> bytes:
        """A photograph, or a part of it, as JPEG: upright, reduced to what a page shows.

        Args:
            number: Of the photograph, counted from 0.
            part: x0, y0, x1, y1 in whole pixels of the upright picture; None: all of it.

        Raises:
            RejectedInput: If the photograph cannot be read.
            UserError: If the part is no box.
        """
        photograph, image = self.album[number], self.album.pixels(number)
        if part is not None:
            x0, y0, x1, y1 = map(int, _stored(part, photograph))
            image = image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        return picture(image, photograph.orientation)

    def mask(self, number: int, box: tuple[float, float, float, float]) -> Layer:
        """The teacher's pseudo-mask of a box, as a transparent picture to lay over the photograph.

        Args:
            number: Of the photograph, counted from 0.
            box: x0, y0, x1, y1 in pixels of the upright picture.

        Raises:
            RejectedInput: If the photograph cannot be read.
            UserError: If the box is none.
        """
        photograph = self.album[number]
        stored = _stored(box, photograph)
        return self.layers.mask(self.album.pixels(number), stored, photograph.orientation)

    def map(self, number: int) -> Layer:
        """The student's map of photograph `number`, as a picture to lay over it.

        Raises:
            RejectedInput: If the photograph cannot be read.
            UserError: If there is no student.
        """
        return self.layers.map(self.album.pixels(number), self.album[number].orientation)

    def save(self, number: int, body: bytes) -> dict[str, Any]:
        """Save what the page sends about photograph `number`.

        Args:
            number: Of the photograph, counted from 0.
            body: A `Change` as JSON.

        Returns:
            `revision`, which the page must send with its next change of this photograph.

        Raises:
            Outdated: If somebody else has saved this photograph in the meantime.
            UserError: If the page sends nonsense, or saves nothing.
        """
        if self.storage is None:
            raise UserError("this page saves nothing; start `boxpromptiml annotate`")
        try:
            change = _CHANGE.validate_json(body)
        except ValidationError as error:
            raise UserError(
                f"cannot be saved: {error.errors(include_url=False)[0]['msg']}"
            ) from error
        if (change.verdict == "manipulated") != bool(change.boxes):
            raise UserError("cannot be saved: what is manipulated has boxes, nothing else has")
        photograph = self.album[number]
        annotation = Annotation(
            change.verdict,
            tuple(_stored(box, photograph) for box in change.boxes),
            change.finished,
            change.seconds,
            self.annotator,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return {"revision": self.storage.put(photograph.name, annotation, change.revision)}

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Keep an uploaded photograph and return its number and name.

        Raises:
            RejectedInput: If it cannot be read.
            UserError: If annotations are saved: they are of a folder's photographs only.
        """
        if self.storage is not None:
            raise UserError("photographs of the folder only; `boxpromptiml page` takes uploads")
        number = self.album.add(PurePath(name).name or "upload", data)
        return {"number": number, "name": self.album[number].name}

    def summary(self) -> dict[str, Any]:
        """Counts by verdict, and seconds per photograph as text."""
        said = [] if self.storage is None else list(self.storage.annotations().values())
        return counts(said) | {"seconds": seconds_text(said)}


def _stored(box: tuple[float, float, float, float], photograph: Photograph) -> Box:
    """A box of the upright picture in stored pixels, cut to the photograph.

    Raises:
        UserError: If nothing of it lies inside, or it is inverted or not finite.
    """
    height, width = photograph.shown_size
    x0, y0, x1, y1 = box
    upright = Box(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    stored = stored_box(upright, photograph.size, photograph.orientation)
    rounded = Box(*(round(side, DECIMALS) for side in stored))
    if not (rounded.x0 < rounded.x1 and rounded.y0 < rounded.y1):
        raise UserError(f"a box must lie inside the photograph of {width} x {height} pixels")
    return rounded
