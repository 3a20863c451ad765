# SPDX-License-Identifier: MIT
"""What the ``dali`` engine is fed with: a batch's images as they lie, and the numbers of its views.

Nothing random is left to DALI. The numbers of a view come from (seed, epoch, draw, block, crop) and
from nothing else, so that they depend neither on the batch, nor on the ranks, nor on a resume.

Legend: N training images, B batch of one rank, R rows = num_crops x B (crop k of image i is row
k * B + i), S crop size.
"""

from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from ltplugins.core.seeding import RowStreams, mix_seeds
from ltplugins.data.augment.params import ViewParams, draw_params, draw_turns, sigma_values
from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.data.engines.draws import Draw, ViewDataset, corrupt_message, replacements
from ltplugins.data.sources.base import CorruptImage, FileSource, Source
from ltplugins.data.sources.joined import JoinedSource
from ltplugins.data.sources.pictures import Damage, is_plain, opened, require_regular
from ltplugins.data.training_set import TrainingSet

# Brightness, contrast and saturation: places in the order of a row, the hue aside.
SLOTS = 3

# Every number of a view: kind (int, float, bool) and dimensions of one sample's.
VIEW_INPUTS = {
    "start": ("i", 1),
    "shape": ("i", 1),
    "roi_start": ("f", 1),
    "roi_end": ("f", 1),
    "flip": ("i", 0),
    "flip_vertical": ("i", 0),
    "turn": ("b", 0),
    "brightness": ("f", 1),
    "contrast": ("f", 1),
    "saturation": ("f", 1),
    "saturates": ("b", 1),
    "early": ("b", 1),
    "late": ("b", 1),
    "jitters": ("b", 0),
    "hue": ("f", 0),
    "grey": ("b", 0),
    "blur": ("b", 0),
    "sigma": ("f", 0),
    "solarize": ("b", 0),
    "equalize": ("b", 0),
}


class FedBatch(NamedTuple):
    """A batch before DALI.

    Attributes:
        indexes: Int[B], positions in the training subset.
        images: uint8 [B, H, W, C], or B encoded files, each uint8 [bytes].
        sizes: Int[B 2], height and width.
        seeds: uint64 [B], of the draws.
        corrupt: files that were replaced, with the reason.
    """

    indexes: np.ndarray
    images: np.ndarray | list[np.ndarray]
    sizes: np.ndarray
    seeds: np.ndarray
    corrupt: list[tuple[str, str]]


class DaliDataset(ViewDataset):
    """The training subset as a map from draws to what DALI is fed with.

    Attributes:
        shape: H, W, C of images in memory; None for files.
        damaged: what DALI or PIL could not read, by position: path and reason.
        by_pil: positions of files that DALI does not read, or reads otherwise (transparency, more
            than 8 bits, EXIF orientation); PIL decodes them.
    """

    def __init__(self, training: TrainingSet, *, seed: int) -> None:
        super().__init__(training, _no_transform, seed=seed)
        images = self.source.images
        self.shape = None if images is None else (*images.shape[1:3], *(images.shape[3:] or (1,)))
        self.damaged: dict[int, tuple[str, str]] = {}
        self.by_pil: set[int] = set()
        self._sizes = np.zeros((len(self.indices), 2), dtype=np.int32)  # 0 = not seen yet

    def __getitems__(self, draws: list[Draw]) -> FedBatch | str:  # type: ignore[override]
        """Read the batch of these draws, or give the message that the loader is to raise."""
        seeds = mix_seeds(self.seed, draws[0].epoch, np.array([d.number for d in draws]))
        positions = [d.position for d in draws]
        if self.source.images is not None:
            images = self.source.images[self.indices[positions]]
            images = images[..., None] if images.ndim == 3 else images
            sizes = np.broadcast_to(images.shape[1:3], (len(draws), 2))
            return FedBatch(np.array(positions), images, sizes, seeds, [])
        files: list[np.ndarray | None] = []
        corrupt = []
        for position in positions:
            try:
                files.append(self.encoded(position))
            except CorruptImage as error:
                if self.on_corrupt == "fail":
                    return corrupt_message(error.path, error.reason)
                corrupt.append((error.path, error.reason))
                files.append(None)
        taken = replacements(files, corrupt)
        if isinstance(taken, str):
            return taken
        chosen = np.array([positions[slot] for slot in taken])
        encoded = [files[slot] for slot in taken]
        return FedBatch(chosen, encoded, self._sizes[chosen], seeds, corrupt)  # type: ignore[arg-type]

    def encoded(self, position: int) -> np.ndarray:
        """Read a file for DALI's decoders, uint8 [bytes]; its size is known afterwards.

        Raises:
            CorruptImage: it is known to be damaged, or has no readable header.
        """
        if position in self.damaged:
            raise CorruptImage(*self.damaged[position])
        i = int(self.indices[position])
        if position in self.by_pil:
            return self._by_pil(position)
        data, path = _read(self.source, i)
        if not self._sizes[position, 0]:
            try:
                with opened(BytesIO(data.tobytes()), _limit_of(self.source, i)) as image:
                    plain = is_plain(image)
                    self._sizes[position] = image.size[::-1]
            except Damage as error:
                raise CorruptImage(path, str(error)) from error
            if not plain:
                self.by_pil.add(position)
                return self._by_pil(position)
        return data

    def _by_pil(self, position: int) -> np.ndarray:
        image = self.source.load(int(self.indices[position]))
        self._sizes[position] = image.shape[:2]  # which an orientation may have exchanged
        return _as_ppm(image)


def _no_transform(image: np.ndarray, strength: float) -> list[Tensor]:
    raise NotImplementedError("DALI makes the views")


def _read(source: Source, i: int) -> tuple[np.ndarray, str]:
    """Read the bytes of image i as a file, and its name."""
    if isinstance(source, JoinedSource):
        first = len(source.source)
        return _read(source.source, i) if i < first else _read(source.ood, i - first)
    if not isinstance(source, FileSource):
        return _as_ppm(source.load(i)), f"image {i}"
    try:
        require_regular(source.paths[i])
        return np.fromfile(source.paths[i], dtype=np.uint8), source.paths[i]
    except OSError as error:
        raise CorruptImage(source.paths[i], f"{type(error).__name__}: {error}") from error
    except Damage as error:
        raise CorruptImage(source.paths[i], str(error)) from error


def _limit_of(source: Source, i: int) -> int:
    """The ``max_pixels`` of the source that image i lies in."""
    if isinstance(source, JoinedSource) and i >= len(source.source):
        return source.ood.max_pixels
    return source.source.max_pixels if isinstance(source, JoinedSource) else source.max_pixels


def _as_ppm(image: np.ndarray) -> np.ndarray:
    """Write uint8 [H, W, 3] as an uncompressed file, for a source of files and arrays."""
    height, width, _ = image.shape
    head = np.frombuffer(b"P6\n%d %d\n255\n" % (width, height), dtype=np.uint8)
    return np.concatenate([head, np.ascontiguousarray(image).reshape(-1)])


def needed_inputs(block: AugmentationBlock, shape: tuple[int, ...] | None) -> list[str]:
    """Name the numbers that the steps of a block read; ``shape`` is H, W, C of images in memory."""
    colour = shape is None or shape[2] == 3
    sized = shape is not None and shape[:2] == (block.crop_size, block.crop_size)
    jitter = block.color_jitter
    crop = ["start", "shape", "roi_start", "roi_end"] if block.rrc.enabled else ["flip"]
    if not block.rrc.enabled and not sized:
        crop += ["start", "shape"]
    steps = [
        (True, crop),
        (jitter.prob, ["brightness", "contrast", "early", "late"]),
        (jitter.prob and colour, ["saturation", "saturates"]),
        (jitter.prob and jitter.hue and colour, ["jitters", "hue"]),
        (block.grayscale.prob and colour, ["grey"]),
        (block.gaussian_blur.prob and block.gaussian_blur.sigma[1], ["blur", "sigma"]),
        (block.solarization.prob, ["solarize"]),
        (block.equalization.prob, ["equalize"]),
        (block.vertical_flip.prob, ["flip_vertical"]),
        (block.quarter_turn.prob, ["turn"]),
    ]
    return [name for needed, names in steps if needed for name in names]


def view_inputs(block: AugmentationBlock, number: int, batch: FedBatch) -> list[dict[str, Any]]:
    """Draw the numbers of block ``number``'s crops, one dict of arrays [B, ...] a crop."""
    crops = np.arange(block.num_crops)[:, None]
    rows = crops.size * len(batch.seeds)
    streams = RowStreams(rearrange(mix_seeds(batch.seeds, number, crops), "crop b -> (crop b)"))
    sizes = repeat(batch.sizes, "b side -> side (crop b)", crop=crops.size)
    height, width = sizes.astype(np.float64)
    params = draw_params(block, rows, torch.from_numpy(height), torch.from_numpy(width), streams)
    table = _geometry(block, params, height, width) | _jitter(params) | _filters(block, params)
    turns = draw_turns(block, rows, streams)
    if turns is not None:
        table["flip_vertical"] = turns.vertical.numpy().astype(np.int32)
        table["turn"] = turns.quarter.numpy()
    split = {k: np.split(v, block.num_crops) for k, v in table.items()}
    return [{k: v[crop] for k, v in split.items()} for crop in range(block.num_crops)]


def _geometry(
    block: AugmentationBlock, params: ViewParams, height: np.ndarray, width: np.ndarray
) -> dict[str, np.ndarray]:
    """``start``, ``shape`` Int[R 2]: a box of the image, or resized sides and the centre's start.

    ``roi_start``, ``roi_end`` Float[R 2]: the whole box, from right to left where it is mirrored.
    """
    flip = params.flip.numpy()
    left, right = np.zeros(len(flip)), np.ones(len(flip))
    regions = {
        "flip": flip.astype(np.int32),
        "roi_start": np.stack([left, flip], 1).astype(np.float32),
        "roi_end": np.stack([right, ~flip], 1).astype(np.float32),
    }
    if (crop := params.crop) is not None:
        start = torch.stack([crop.top, crop.left], 1).int().numpy()
        shape = torch.stack([crop.height, crop.width], 1).int().numpy()
    else:
        sides = np.stack([height, width], 1)
        # torchvision's Resize of the shorter side, then its CenterCrop.
        shape = (block.crop_size * sides / sides.min(1, keepdims=True)).astype(np.int32)
        start = np.round((shape - block.crop_size) / 2.0).astype(np.int32)
    return {"start": start, "shape": shape, **regions}


def _jitter(params: ViewParams) -> dict[str, np.ndarray]:
    """Say what each slot does, Float[R 3], and whether before or after the hue, Bool[R 3]."""
    jitter = params.jitter
    operator = jitter.rank[:, :SLOTS].argsort(1)  # (R, 3): 0 brightness, 1 contrast, 2 saturation
    factor = jitter.factor.gather(1, operator)
    slot = torch.arange(SLOTS)
    hue_place = (jitter.rank[:, :SLOTS] < jitter.rank[:, SLOTS:]).sum(1, keepdim=True)
    applies = jitter.apply[:, None]
    table = {
        name: torch.where(operator == n, factor, 1.0)
        for n, name in enumerate(("brightness", "contrast", "saturation"))
    }
    table |= {
        "early": applies & (slot < hue_place),
        "late": applies & (slot >= hue_place),
        "saturates": operator == 2,
        "jitters": jitter.apply,
        "hue": jitter.hue,
    }
    return {k: v.numpy() for k, v in table.items()}


def _filters(block: AugmentationBlock, params: ViewParams) -> dict[str, np.ndarray]:
    return {
        "grey": params.grey.numpy(),
        "blur": params.blur.numpy(),
        "sigma": sigma_values(block.gaussian_blur.sigma)[params.sigma_level].numpy(),
        "solarize": params.solarize.numpy(),
        "equalize": params.equalize.numpy(),
    }
