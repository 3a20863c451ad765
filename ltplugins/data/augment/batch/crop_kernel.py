# SPDX-License-Identifier: MIT
"""The matrices of crop, resize and flip on a GPU in one launch.

The formulas are those of ``ops.resample_weights``; step by step they are some forty launches on
small tensors. Needs Triton.

Legend: R rows, S output size.
"""

# mypy: disable-error-code="no-untyped-def"
import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096  # weights that a program holds at a time


def crop_matrices(axes: Tensor, in_size: int, out_size: int) -> Tensor:
    """What ``ops.dense_matrix`` makes of ``ops.resample_weights``: Float[R S in_size].

    Args:
        axes: Float[3 R], contiguous: first pixel and pixels of the crop, 1 = mirrored.
        in_size: pixels of the image.
        out_size: S.
    """
    rows = axes.shape[1]
    matrices = axes.new_empty(rows, out_size, in_size)
    width = triton.next_power_of_2(in_size)
    lines = min(triton.next_power_of_2(out_size), max(1, _BLOCK // width))
    with torch.cuda.device_of(axes):
        _weigh[(rows, triton.cdiv(out_size, lines))](
            *(axes, matrices, rows),
            *(in_size, out_size),
            LINES=lines,
            WIDTH=width,
            num_warps=8,
        )
    return matrices


@triton.jit
def _weigh(axes, matrices, rows, in_size, out_size, LINES: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    start = tl.load(axes + row)
    length = tl.load(axes + rows + row)
    flip = tl.load(axes + 2 * rows + row)
    scale = length / out_size
    narrow = 1.0 / tl.maximum(scale, 1.0)
    line = tl.program_id(1) * LINES + tl.arange(0, LINES)
    # Mirrored, output pixel o stands where S - 1 - o stood.
    out = line + 0.5
    centre = (out * (1.0 - 2.0 * flip) + out_size * flip) * scale - 0.5
    column = tl.arange(0, WIDTH)
    pixel = column - start  # of the crop
    x = tl.abs(pixel[None, :] - centre[:, None]) * narrow
    outer = tl.maximum(2.0 - x, 0.0)
    inner = tl.maximum(1.0 - x, 0.0)
    weight = inner * inner * (1.0 - 2.0 * inner) + 0.5 * outer * outer * (outer - 1.0)
    inside = (pixel >= 0.0) & (pixel < length) & (column < in_size)
    weight = tl.where(inside[None, :], weight, 0.0)
    total = tl.where(line < out_size, tl.sum(weight, axis=1), 1.0)
    weight = weight / total[:, None]
    place = (row.to(tl.int64) * out_size + line[:, None]) * in_size + column[None, :]
    tl.store(
        matrices + place, weight, mask=(line[:, None] < out_size) & (column[None, :] < in_size)
    )
