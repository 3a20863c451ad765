# SPDX-License-Identifier: MIT
"""Class profiles and the images they choose."""

import hashlib

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.data.imbalance import (
    ImbalanceConfig,
    class_order,
    exponential_counts,
    hash_indices,
    make_split,
    pareto_counts,
    select_indices,
    step_counts,
)
from tests.kit.data import split_of

# Labels in the form of CIFAR-100's training part: 500 a class, in mixed order.
LABELS = np.random.RandomState(7).permutation(np.repeat(np.arange(100), 500))

# Sha256 of the index lists that `ldam_oracle` gave for LABELS, written down once.
STORED = {
    100: "1fe4a345fdc2fc889758354964c9ccb87d7ef07fdc4256b655d1880edd1ffde6",
    50: "bfaf374c0e8bdab589b22dae7f6020b0ac59226eb869e05c392113f3cee277cc",
    10: "0d5193670f7a5e2aa62d71bb9f853e8fb8286761f0fd2518e9766af2fda52eff",
}


def ldam_oracle(labels, factor, seed):
    """The split as a plain loop with NumPy's global random state, list by list."""
    state = np.random.get_state()
    np.random.seed(seed)
    chosen = []
    for c in sorted({int(v) for v in labels}):
        places = np.array([i for i, v in enumerate(labels) if v == c])
        np.random.shuffle(places)
        keep = int(500 * ((1 / factor) ** (c / (100 - 1.0))))
        chosen += [int(i) for i in places[:keep]]
    np.random.set_state(state)
    return chosen


@pytest.mark.parametrize(("factor", "total"), [(100, 10847), (50, 12608), (10, 19573)])
def test_exponential_split_is_ldams(factor, total):
    counts = exponential_counts(500, 100, factor)
    indices = select_indices(LABELS, counts, seed=0)
    expected = ldam_oracle(LABELS, factor, 0)
    assert sum(counts) == len(indices) == total
    assert indices.tolist() == expected
    assert hash_indices(indices) == STORED[factor]


def test_oracle_rejects_wrong_splits():
    counts = exponential_counts(500, 100, 100)
    right = ldam_oracle(LABELS, 100, 0)
    assert select_indices(LABELS, counts, seed=1).tolist() != right
    assert select_indices(LABELS, counts[::-1], seed=0).tolist() != right
    # One permutation of the whole set instead of one shuffle a class.
    order = np.random.RandomState(0).permutation(len(LABELS))
    whole = np.concatenate([order[LABELS[order] == c][: counts[c]] for c in range(100)])
    assert whole.tolist() != right


def test_selection_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()
    select_indices(LABELS, exponential_counts(500, 100, 10), seed=3)
    assert (np.random.get_state()[1] == before).all()


def test_profiles_by_hand():
    assert exponential_counts(100, 3, 100) == [100, 10, 1]
    assert step_counts(50, 5, 10) == [50, 50, 5, 5, 5]
    # c = (64^(1/6) - 1) / 2 = 0.5: 64 / 1.5^6 = 5.6 and 64 / 2^6 = 1.
    assert pareto_counts(64, 3, 64) == [64, 5, 1]
    assert exponential_counts(7, 1, 100) == [7]
    assert exponential_counts(7, 4, 1) == [7, 7, 7, 7]


def test_hash_is_that_of_little_endian_int64():
    data = b"\x01" + b"\x00" * 7 + b"\x00\x01" + b"\x00" * 6
    assert hash_indices(np.array([1, 256], dtype=np.int32)) == hashlib.sha256(data).hexdigest()


def test_class_order_decides_head_and_tail():
    targets = np.repeat(np.arange(4), 100)
    natural = split_of(targets, 4, {"kind": "exp", "factor": 100})
    permuted = split_of(targets, 4, {"kind": "exp", "factor": 100, "class_order": 3})
    order = np.random.RandomState(3).permutation(4)
    assert natural.class_counts.tolist() == [100, 21, 4, 1]
    assert permuted.class_counts[order].tolist() == [100, 21, 4, 1]
    assert not (order == np.arange(4)).all()
    assert np.bincount(targets[permuted.indices]).tolist() == permuted.class_counts.tolist()
    assert natural.hash != permuted.hash
    assert "class_order 3" in permuted.description
    assert class_order("3", 4).tolist() == order.tolist()


def test_no_block_keeps_everything_and_unlabelled_images():
    split = make_split(np.array([1, -1, 0, 1]), 3, None)
    assert split.indices.tolist() == [0, 1, 2, 3]
    assert split.class_counts.tolist() == [1, 2, 0]


def test_unlabelled_images_are_never_chosen():
    targets = np.array([-1] * 5 + [0] * 4 + [1] * 4)
    split = make_split(targets, 2, ImbalanceConfig(kind="exp", factor=2))
    assert split.class_counts.tolist() == [4, 2]
    assert split.indices.min() >= 5


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_index_file_and_its_hash(tmp_path, suffix):
    path = tmp_path / f"index{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([3, 0]))
    else:
        path.write_text("3\n\n0\n")
    block = {"kind": "file", "path": str(path), "sha256": hash_indices(np.array([3, 0]))}
    split = split_of(np.array([0, 1, 1, 2]), 3, block)
    assert split.indices.tolist() == [3, 0]
    assert split.class_counts.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"not the expected one; expected abc, found [0-9a-f]{64}"):
        split_of(np.array([0, 1, 1, 2]), 3, {**block, "sha256": "abc"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\nx\n", "line 2: expected one index, got 'x'"),
        ("0\n9\n", "index 9 is outside the source of 4 images"),
        ("0\n-1\n", "index -1 is outside"),
        ("1\n2\n1\n", "index 1 appears more than once"),
        ("\n", "the index list is empty"),
    ],
)
def test_bad_index_files(tmp_path, text, message):
    path = tmp_path / "index.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        split_of(np.zeros(4), 1, {"kind": "file", "path": str(path)})


def test_bad_index_array(tmp_path):
    np.save(tmp_path / "i.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"one-dimensional integer array, got float64"):
        split_of(np.zeros(4), 1, {"kind": "file", "path": str(tmp_path / "i.npy")})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"kind": "exp", "factor": 0.01}, r"of 1 or more \(100, not 0.01\), got 0.01. Set it"),
        ({"kind": "exp", "factor": 0}, r"expected a number of 1 or more \(100, not 0.01\), got 0"),
        ({"kind": "exp", "factor": 2, "max_count": 50}, "class 0: 50 images asked, 10 available"),
        ({"kind": "exp", "factor": 1000}, "factor 1000 leaves class 3 without an image"),
        (
            {"kind": "exp", "class_order": "random"},
            "class_order: expected 'natural' or a whole number from 0 to 4294967295, got 'random'",
        ),
        ({"kind": "file"}, "data.imbalance.path is missing"),
        ({"kind": "file", "path": "nowhere.txt"}, "no such file: nowhere.txt"),
        ({"kind": "expo"}, "expected one of exp, .*Did you mean 'exp'"),
        ({"factr": 3}, "unknown key 'data.imbalance.factr'. Did you mean 'factor'"),
        ({"kind": "pareto", "alpha": -1, "factor": 2}, "alpha: expected a number above 0, got -1"),
        (
            {"kind": "exp", "factor": 2, "max_count": 0},
            "max_count: expected a whole number of 1 or more, got 0",
        ),
    ],
)
def test_bad_blocks(block, message):
    with pytest.raises(UserError, match=message):
        split_of(np.repeat(np.arange(4), 10), 4, block)


def test_a_class_that_is_absent_and_labels_that_are_absent():
    with pytest.raises(UserError, match=r"class 1: 2 images asked, 0 available"):
        select_indices(np.zeros(4), [2, 2], seed=0)
    with pytest.raises(UserError, match=r"needs labels"):
        split_of(np.full(4, -1), 1, {"kind": "exp", "factor": 2})
