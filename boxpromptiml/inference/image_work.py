"""One image at a time in a worker: decoded, localized, its files written."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.predictions import Prediction
from boxpromptiml.io.processes import keep_freed_memory
from boxpromptiml.io.sandbox import FileDecoder
from boxpromptiml.io.trust import trust, trusted_names


@dataclass(frozen=True)
class ImageWork:
    """Localizes an image, given by its name and path; made in one process and used in others.

    A worker loads the localizer and starts the decoder when it gets its first image.

    Attributes:
        load: Loads the localizer.
        open_decoder: Opens what decodes images.
        write: `write_prediction`, from `name` on but for `limits`, `overlays` and `made_by`.
        fingerprint: Fingerprint of a localizer and the job's settings.
        made_by: The fingerprint where the job was started.
        tile: As in `Localizer.localize`.
        trusted: Code that may run in a worker, as it may here.
    """

    load: Callable[[], Localizer]
    open_decoder: Callable[[], AbstractContextManager[FileDecoder]]
    write: Callable[..., Prediction]
    fingerprint: Callable[[Localizer], str]
    made_by: str
    tile: bool
    trusted: Sequence[str] = field(default_factory=trusted_names)

    def __call__(self, item: tuple[str, Path]) -> Prediction | RejectedInput:
        """The row of the image, whose files are then written, or why it has none.

        Raises:
            UserError: If weights, versions or devices differ from those of the job.
        """
        name, path = item
        localizer, decode = self._opened
        try:
            image, info = decode(path)
        except RejectedInput as error:
            return error
        (found,) = localizer.localize([image], self.tile)
        return self.write(name, path, image, info, found.prob, found.score)

    @cached_property
    def _opened(self) -> tuple[Localizer, FileDecoder]:
        trust(self.trusted)
        keep_freed_memory()
        cv2.setNumThreads(0)  # the workers are the threads
        localizer = self.load()
        if self.fingerprint(localizer) != self.made_by:
            raise UserError(
                f"{os.uname().nodename}: other weights, settings or runtime than where the job was "
                "started; install the same version on every node"
            )
        return localizer, self.open_decoder().__enter__()
