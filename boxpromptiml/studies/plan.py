"""A study's file, and the trainings that it defines."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from boxpromptiml.errors import UserError
from boxpromptiml.io.experiments import find_experiment, packaged_experiments
from boxpromptiml.io.files import fingerprint, sha256_file
from boxpromptiml.io.old_names import renamed
from boxpromptiml.io.strict_yaml import read_yaml

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_SHARED = re.compile(f"{_NAME.pattern}/{_NAME.pattern}")
_SETTING = re.compile(r"(?:model|data|trainer|checkpoint)(?:\.\w+)*|seed_everything")
_PROGRAMS = ("boxpromptiml", "data_prep")
_NO_DATA = ("study", "annotate", "page")  # commands that call themselves, or wait for a person
TRAINER_VERBS = ("fit", "validate", "test", "predict")
_DATA_OPTIONS = re.compile(  # whose files are data, not configurations
    r"--(data\.(train|val|test|predict)|ckpt_path|model(\.init_args)?\.(init_from|pretrained))\+?"
)
_SEEDS = range(2**32)


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        what: Description shown in the table.
        settings: Dotted keys of the experiment, as on the command line.
        config: Experiment file to use instead of the study's.
        same_as: STUDY/VARIANT of a study in the same parent folder, whose runs are shared.
    """

    what: str
    settings: dict[str, Any] = field(default_factory=dict)
    config: str | None = None
    same_as: str | None = None


@dataclass(frozen=True)
class Study:
    """The content of a study's file.

    Attributes:
        title: Title of the table.
        config: Path of the experiment's YAML file.
        variants: The variants by name; the name is also a folder.
        reference: The variant that the others are compared with.
        settings: Settings of all variants; a variant's own take precedence.
        seeds: One training per variant and seed.
        prepare: Commands that make the data, each executed once: `data_prep …` or `boxpromptiml …`.
    """

    title: str
    config: str
    variants: dict[str, Variant]
    reference: str
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    prepare: list[str] = field(default_factory=list)


_STRICT = ConfigDict(extra="forbid", strict=True)
Variant.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
Study.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Training:
    """One variant with one seed.

    Attributes:
        variant: Name of the variant.
        seed: Of its training.
        folder: The run's folder.
        config: Configuration that `fit` starts from.
        settings: Values by dotted name that replace those of the configuration.
    """

    variant: str
    seed: int
    folder: Path
    config: str
    settings: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The command line of its `fit`."""
        values = self.settings | {
            "trainer.default_root_dir": str(self.folder),
            "seed_everything": self.seed,
            "data.seed": self.seed,
        }
        return ["fit", "--config", self.config] + [
            f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in values.items()
        ]


def read_study(path: Path, trusted: bool = False) -> Study:
    """Read and check a study's file.

    Args:
        path: The study's file.
        trusted: Whether the user has given --trust; configurations may then lie anywhere.

    Raises:
        UserError: Naming the file and the field; also for settings and commands beyond a training
            of ours.
    """
    try:
        text = json.dumps(renamed(read_yaml(path)), default=str, allow_nan=False)
        plan = TypeAdapter(Study).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {place}: {first['msg']}") from error
    except UserError:
        raise
    except ValueError as error:  # of json.dumps
        raise UserError(f"{path}: numbers must be finite") from error
    except (TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for place, problem in _problems(plan):
        raise UserError(f"{path}: {place}: {problem}")
    folder = None if trusted else path.parent
    for command in plan.prepare:
        if wrong := _problem_of_command(command, folder):
            raise UserError(f"{path}: prepare: {command!r} {wrong}")
    for training in plan_trainings(plan, Path("out"), [0]):
        if wrong := _problem_of_words(["boxpromptiml", *training.words], folder):
            raise UserError(f"{path}: variants.{training.variant} {wrong}")
    return plan


def _problems(plan: Study) -> Iterator[tuple[str, str]]:
    """Place and text of every problem of a study of the right types."""
    if plan.reference not in plan.variants:
        yield "reference", f"{plan.reference!r} is none of {sorted(plan.variants)}"
    yield from (("settings", problem) for problem in _problems_of_settings(plan.settings))
    for name, variant in plan.variants.items():
        if not _NAME.fullmatch(name):
            yield "variants", f"{name!r} must consist of at most 100 letters, digits, - and _"
        if variant.same_as and not _SHARED.fullmatch(variant.same_as):
            yield f"variants.{name}.same_as", f"{variant.same_as!r} must be STUDY/VARIANT"
        for problem in _problems_of_settings(variant.settings):
            yield f"variants.{name}.settings", problem


def _problems_of_settings(settings: dict[str, Any]) -> Iterator[str]:
    """Problems with keys that no experiment has, such as `trust`, which only the user may give."""
    for key in settings:
        if not _SETTING.fullmatch(key):
            yield (
                f"{key!r} is not a setting of an experiment; these begin with model, data, trainer "
                "or checkpoint, or are seed_everything"
            )


def _problem_of_command(command: str, folder: Path | None) -> str | None:
    """The problem with a command of `prepare`; None if it is fine.

    Args:
        command: The command as written in the file.
        folder: See `_problem_of_words`.
    """
    try:
        program, *words = shlex.split(command)
    except ValueError as error:  # no word at all, or a quotation that does not end
        return f"is not a command line: {error}"
    if program not in _PROGRAMS:
        return f"must begin with one of {_PROGRAMS}"
    options = {word.partition("=")[0].replace("-", "_") for word in words}
    if "wandb-artifact" in words or options & {"__address", "__allow_remote"}:
        return "uses other machines; run it yourself"
    verb = next((word for word in words if not word.startswith("-")), "")
    if folder and verb not in TRAINER_VERBS and "__config" in options:
        return "hides its options in a configuration; write them into the command"
    return _problem_of_words([program, *words], folder)


def _problem_of_words(command: Sequence[str], folder: Path | None) -> str | None:
    """The problem with the words of a command of ours; None if it is fine.

    Args:
        command: The words.
        folder: Configurations must be below it, below the working directory, or packaged; None for
            anywhere.
    """
    program, *words = command
    verb = next((word for word in words if not word.startswith("-")), "")
    for before, word in pairwise([program, *words]):
        if word.startswith("--trust"):
            return "must not name code to trust; give --trust to `boxpromptiml study` yourself"
        value = _configuration(before, word, verb)
        if folder and value is not None and not _is_below(find_experiment(value), folder):
            return (
                f"uses {value}, a configuration outside the study's folder and the working "
                "directory; move it there, or add --trust=NAME if you know and trust both"
            )
    return "makes no data" if program == "boxpromptiml" and verb in _NO_DATA else None


def _configuration(before: str, word: str, verb: str) -> str | None:
    """The configuration that a word names, alone or with its option; None if it names none."""
    option, equals, value = word.partition("=")
    if word.startswith("-c"):  # -cFILE and -c=FILE
        option, value = "-c", word[2:].removeprefix("=")
    elif not (equals and word.startswith("-")):
        option, value = before, word
    if not value:
        return None
    if option in ("-c", "--config") or value.lower().endswith((".yaml", ".yml")):
        return value
    # A group of a trainer's options may be given as a file of any name, as in --data=FILE.
    others = verb in TRAINER_VERBS and not _DATA_OPTIONS.fullmatch(option)
    return value if others and _is_file(value) else None


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # overlong
        return False


def _is_below(path: str, folder: Path) -> bool:
    real = Path(path).resolve()
    return any(real.is_relative_to(root.resolve()) for root in (folder, Path.cwd())) or any(
        real == packaged.resolve() for packaged in packaged_experiments().values()
    )


def plan_trainings(plan: Study, folder: Path, seeds: Sequence[int]) -> list[Training]:
    """All trainings of a study, seed by seed, so that every variant has an early result.

    Each gets a folder of its own below `folder`.

    Raises:
        UserError: If there is no seed, one is given twice, or one is out of range.
    """
    if not seeds or len(set(seeds)) < len(seeds) or not all(seed in _SEEDS for seed in seeds):
        raise UserError(f"seeds: one or more, none twice, from 0 to {_SEEDS[-1]}")
    return [
        Training(
            name,
            seed,
            variant_folder(folder, name, variant) / f"seed_{seed}",
            variant.config or plan.config,
            plan.settings | variant.settings,
        )
        for seed in seeds
        for name, variant in plan.variants.items()
    ]


def variant_folder(folder: Path, name: str, variant: Variant) -> Path:
    """Folder of the runs of the variant called `name`, for a study in `folder`."""
    return folder.parent / variant.same_as if variant.same_as else folder / name


def training_fingerprint(training: Training) -> str:
    """A hash that changes with the experiment's file, the settings, and the training manifests.

    Raises:
        UserError: If one of these cannot be read.
    """
    experiment = Path(find_experiment(training.config))
    manifests = _training_manifests(training.settings, renamed(read_yaml(experiment)))
    if missing := [path for path in manifests if not Path(path).is_file()]:
        raise UserError(f"data.train: {missing[0]} does not exist; see the study's `prepare`")
    hashes = [sha256_file(Path(path)) for path in manifests]
    text = experiment.read_text(encoding="utf-8")
    return fingerprint([text, training.settings, training.seed, hashes])


def _training_manifests(settings: dict[str, Any], experiment: object) -> list[str]:
    data = experiment.get("data") if isinstance(experiment, dict) else None
    found = settings.get("data.train", data.get("train", []) if isinstance(data, dict) else [])
    given: list[object] = found if isinstance(found, list) else [found]
    manifests = [path for path in given if isinstance(path, str)]
    if len(manifests) < len(given):
        raise UserError(f"data.train: {found!r} is no list of manifests")
    return manifests
