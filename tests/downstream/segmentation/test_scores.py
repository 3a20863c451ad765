# SPDX-License-Identifier: MIT
"""mIoU of a whole set from one matrix, and IoU of classes by how often they are seen."""

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ltplugins.downstream.segmentation.scores import (
    class_iou,
    confusion,
    frequency_groups,
    mean_of,
    pixel_scores,
)


def images(seed=0, classes=4):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, classes, (6, 9, 9), generator=generator)
    preds = masks.where(torch.rand(masks.shape, generator=generator) < 0.6, (masks + 1) % classes)
    masks[:, 0] = 255
    return preds, masks


def test_it_is_that_of_torchmetrics():
    preds, masks = images()
    found = class_iou(confusion(preds, masks, 4))
    metric = MulticlassJaccardIndex(4, average=None, ignore_index=255)
    assert found == pytest.approx(metric(preds, masks).tolist())


def test_it_is_of_the_set_and_not_a_mean_of_images():
    preds, masks = images()
    parts = [confusion(p, m, 4) for p, m in zip(preds, masks, strict=True)]
    whole = confusion(preds, masks, 4)
    assert whole.dtype == torch.int64
    assert torch.equal(sum(parts), whole)
    mean = mean_of([mean_of(class_iou(part)) for part in parts])
    assert abs(mean - mean_of(class_iou(whole))) > 1e-4


def test_a_slow_count():
    preds, masks = images()
    matrix = [[0] * 4 for _ in range(4)]
    for p, m in zip(preds.flatten().tolist(), masks.flatten().tolist(), strict=True):
        if m != 255:
            matrix[m][p] += 1
    assert confusion(preds, masks, 4).tolist() == matrix


def test_an_absent_class_is_left_out_even_where_it_is_predicted():
    matrix = torch.tensor([[8, 0, 2], [0, 5, 5], [0, 0, 0]])
    found = pixel_scores(matrix, [3, 3, 3], [10, 10, 10])
    assert found["per_class"] == [0.8, 0.5, None]
    assert found["miou"] == pytest.approx(0.65)
    assert found["accuracy"] == pytest.approx(13 / 20)
    assert found["absent"] == [2]


def test_rare_by_images_and_rare_by_pixels():
    """Class 0 is a thin line in every image, class 2 fills one image."""
    image_counts, pixel_counts = [100, 50, 1], [10, 500, 4000]
    matrix = torch.tensor([[1, 9, 0], [0, 10, 0], [0, 5, 15]])
    found = pixel_scores(matrix, image_counts, pixel_counts)
    assert found["members"]["images"] == {"frequent": [0], "common": [1], "rare": [2]}
    assert found["members"]["pixels"] == {"frequent": [2], "common": [1], "rare": [0]}
    assert found["groups"]["images"]["rare"] == pytest.approx(0.75)
    assert found["groups"]["pixels"]["rare"] == pytest.approx(0.1)


def test_a_group_without_a_test_pixel():
    matrix = torch.tensor([[3, 0, 0], [0, 3, 0], [0, 0, 0]])
    found = pixel_scores(matrix, [3, 2, 1], [3, 2, 1])
    assert found["groups"]["pixels"]["rare"] is None
    assert frequency_groups([3, 2, 1])["rare"] == [2]
