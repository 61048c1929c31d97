"""Manifests to dataloaders."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from boxpromptiml.data.cache_fill import cached_images, refuse_uncacheable
from boxpromptiml.data.dataset import EvalDataset, TrainDataset, collate
from boxpromptiml.data.leaks import refuse_shared_images, refuse_stale_pseudo_masks
from boxpromptiml.data.samplers import EpochLoader, EpochSampler, ShardSampler
from boxpromptiml.data.shared_memory import require_shared_memory
from boxpromptiml.data.supervision import Selection, SourceWeights, Supervision
from boxpromptiml.data.transforms import Augmentation, TrainTransform
from boxpromptiml.errors import UserError
from boxpromptiml.io.options import AtLeastOne, ProcessCount, Seed
from boxpromptiml.io.trust import trust, trusted_names
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.manifests.sources import Sources, read_sources, require_truth
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Split
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter
from boxpromptiml.synth.degradation import Degradation

_MAX_SIZES = 10_000  # images looked at for the largest one
_BYTES_OF_MAPS = 5  # a pixel: target and validity, or truth and regions


class LocalizationData(LightningDataModule):
    """Training, validation and test images from manifests.

    Of every manifest, the rows of the split that matters are taken: `train` uses the rows with
    `"split": "train"`, and so on. The same file may be named for several stages.

    Args:
        train: Manifests to train on; from Python also a single one, here and below.
        val: Manifests to choose the checkpoint by.
        test: Manifests to report on.
        predict: Manifests to predict, all rows.
        supervision: Supervision of manipulated training images: the ground-truth `mask`, the
            teacher's `pseudo`-mask, the filled `box`es, the image `label` alone, or `mixed`: for
            each image the best annotation that it has and that `weights` allow.
        weights: Loss weights of the images by their supervision, for `mixed`.
        input: How an image becomes the network's input.
        augmentation: Augmentation of the training images.
        segmenter: Regions of the evaluation images, for tasks that refine maps with them.
        degrade: Simulates what happens to an image after the forgery, for `validate`, `test` and
            `predict`, not for `fit`; maps are scored and written at the stored size.
        include_authentic: Train on authentic images too (the paper does not).
        train_fraction: Fraction of the training images to use, for learning curves; the same of
            manipulated and of authentic images, chosen by `seed`, nested for growing fractions.
        soft_unsure: Train unsure pixels of a pseudo-mask towards 0.5 instead of ignoring them.
        batch_size: Training images per step and process.
        eval_batch_size: Images per batch in evaluation.
        num_workers: Number of loader processes.
        seed: Seed of order and augmentation; results do not depend on `num_workers`.
        teacher_signature: Fingerprint of the only teacher whose pseudo-masks are accepted; it is
            in the summary.json of the pseudo-mask job.
        cache: Folder that keeps the training images at network size: filled at the first start,
            read instead of the image files afterwards. For `resize` inputs whose augmentation
            does not need the stored pixels. 200 kB an image at 224 x 224.

    Raises:
        UserError: If `train_fraction` is outside (0, 1].
    """

    def __init__(
        self,
        train: list[Path | str] | None = None,
        val: list[Path | str] | None = None,
        test: list[Path | str] | None = None,
        predict: list[Path | str] | None = None,
        supervision: Supervision = "pseudo",
        weights: SourceWeights = SourceWeights(),
        input: NetworkInput = NetworkInput(),  # noqa: A002
        augmentation: Augmentation = Augmentation(),
        segmenter: SegmenterConfig = SegmenterConfig(name="none"),
        degrade: Degradation = Degradation(),
        include_authentic: bool = True,
        train_fraction: float = 1.0,
        soft_unsure: bool = False,
        batch_size: AtLeastOne = 16,
        eval_batch_size: AtLeastOne = 8,
        num_workers: ProcessCount = 0,
        seed: Seed = 0,
        teacher_signature: str | None = None,
        cache: Path | str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < train_fraction <= 1:
            raise UserError(f"data.train_fraction must be in (0, 1], got {train_fraction}")
        stages = {"train": train, "val": val, "test": test, "predict": predict}
        self.paths = {stage: _as_paths(given) for stage, given in stages.items()}
        self.input = input
        self.augmentation = augmentation
        self.segmenter = segmenter
        self.degrade = degrade
        self.selection = Selection(supervision, weights, include_authentic, train_fraction, seed)
        self.trained_on: tuple[str, ...] = ()  # datasets, known after setup('fit')
        self.manipulated = 0  # training images, known after setup('fit')
        self.soft_unsure = soft_unsure
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.teacher_signature = teacher_signature
        self.cache = Path(cache) if cache else None
        self._datasets: dict[str, Any] = {}

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: Lightning imports and calls what the checkpoint names.

        Raises:
            UserError: Always.
        """
        raise UserError("load_from_checkpoint runs what the file names: use the run's config.yaml")

    def setup(self, stage: str) -> None:
        """Read the manifests of a stage and check them.

        Raises:
            UserError: If a manifest is missing or wrong, has no rows of the split, shares a group
                of images between training and evaluation, or holds stale pseudo-masks.
        """
        if stage == "fit":
            self._refuse_degraded()
            if self.cache:
                refuse_uncacheable(self.input, self.augmentation)
            train, val = self._training_sources(), self._with_truth("val", "val")
            evaluated = {"validation": val}
            if test := self._test_sources():
                evaluated["test"] = test
            refuse_shared_images(train, evaluated)
            self._datasets["train"] = self._training(train)
            self._datasets["val"] = self._evaluation(val)
        elif stage == "validate":
            self._datasets["val"] = self._evaluation(self._with_truth("val", "val"))
        elif stage == "test":
            self._datasets["test"] = self._evaluation(self._with_truth("test", "test"))
        elif stage == "predict":
            self._datasets["predict"] = self._evaluation(self._sources("predict"), False)

    def _test_sources(self) -> Sources:
        """The test images for the leak guard of `fit`, which needs none otherwise."""
        paths = [path for path in self.paths["test"] if path.exists()]
        sources = Sources(read_manifest(path) for path in paths)
        return sources.where(source.sample.split == "test" for source in sources)

    @property
    def val_sources(self) -> Sources:
        """The validation images, known after setup."""
        sources: Sources = self._datasets["val"].sources
        return sources

    def _training(self, sources: Sources) -> TrainDataset:
        target, size = self.selection.target, self.input.size
        cached = None
        if self.cache:
            cached = cached_images(self.cache, sources, target, size, self.num_workers)
        transform = TrainTransform(self.input, self.augmentation)
        return TrainDataset(sources, target, transform, self.seed, self.soft_unsure, cached)

    def _evaluation(self, sources: Sources, with_truth: bool = True) -> EvalDataset:
        segmenter = build_segmenter(self.segmenter)
        self.degrade.check()
        return EvalDataset(sources, self.input, with_truth, segmenter, self.degrade, self.seed)

    def _refuse_degraded(self) -> None:
        if self.degrade != Degradation():
            raise UserError(
                f"data.degrade={self.degrade} is for validate, test and predict: in training it "
                "would choose the checkpoint; see data.augmentation"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches; the last incomplete batch is dropped."""
        dataset = self._datasets["train"]
        rank, world_size = self._process()
        sampler = EpochSampler(dataset, self.seed, rank, world_size)
        options = self._loader_options(min(self.batch_size, len(sampler)), self.input.size)
        loader = EpochLoader(dataset, sampler=sampler, drop_last=True, **options)
        loader.batches_done = self._batches_done
        return loader

    def _batches_done(self) -> int:
        """Batches of the current epoch that a run resumed within it has trained on."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.completed

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation image once over all processes."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test image once over all processes."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Every image once over all processes."""
        return self._eval_loader("predict")

    def _eval_loader(self, name: str) -> DataLoader[Any]:
        dataset = self._datasets[name]
        sampler = ShardSampler(dataset, *self._process())
        sizes = [source.sample.size for source in islice(dataset.sources, _MAX_SIZES)]
        largest = max(sizes, key=prod)
        options = self._loader_options(self.eval_batch_size, largest)
        return DataLoader(dataset, sampler=sampler, **options)

    def _loader_options(self, batch_size: int, size: tuple[int, int]) -> dict[str, Any]:
        """Options of all loaders.

        Args:
            batch_size: Images a batch.
            size: (h, w) of the largest map that comes with an image.
        """
        shown = size if self.input.mode == "native" else self.input.size
        channels = 3 + self.input.extra_channels
        image_bytes = 4 * channels * prod(shown) + _BYTES_OF_MAPS * prod(size)
        require_shared_memory(batch_size * image_bytes, self.num_workers)
        trusted = trusted_names()
        return {
            "batch_size": batch_size,
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "persistent_workers": self.num_workers > 0,
            # With one of its own, Lightning would not seed the workers of each process differently.
            "worker_init_fn": partial(_start_worker, trusted) if trusted else None,
        }

    def _process(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _sources(self, stage: str, split: Split | None = None) -> Sources:
        paths = self.paths[stage]
        if not paths:
            raise UserError(f"no manifest given: set --data.{stage}='[manifest.jsonl]'")
        return read_sources(paths, split)

    def _with_truth(self, stage: str, split: Split) -> Sources:
        sources = self._sources(stage, split)
        if self.selection.supervision != "label":  # labels alone still give image scores
            require_truth(sources, f"data.{stage}")
        return sources

    def _training_sources(self) -> Sources:
        chosen = self.selection.choose(self._sources("train", "train"))
        self.trained_on, self.manipulated = chosen.datasets, chosen.manipulated
        self.selection.warn_of_crops(chosen.sources, self.input)
        supervised_by_teacher = self.selection.with_pseudo_masks(chosen.sources)
        refuse_stale_pseudo_masks(supervised_by_teacher, self.teacher_signature)
        return chosen.sources


def _start_worker(trusted: Sequence[str], _number: int) -> None:
    """Trust what the parent trusts, which a forked process does anyway and a spawned one not."""
    trust(trusted)


def _as_paths(given: Sequence[Path | str] | Path | str | None) -> list[Path]:
    return [Path(one) for one in ([given] if isinstance(given, (Path, str)) else given or ())]
