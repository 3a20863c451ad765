# SPDX-License-Identifier: MIT
"""Fine-tuning on two processes: as on one of twice the batch, where statistics are frozen."""

import sys

import torch

from ltplugins.stages.pretrain import pretrain
from tests.kit import forked
from tests.kit.runs import load
from tests.kit.tiny import tiny_config


def test_two_processes_end_as_one_of_twice_the_batch(tmp_path):
    """The probe, in which no gradient reaches the backbone, and the layers after it."""
    # The engine whose views do not depend on the batch that an image is in.
    run = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1, data__engine="workers"))
    states = []
    for devices in (1, 2):
        words = [f"run={run}", f"output_dir={tmp_path / str(devices)}", f"devices={devices}"]
        words += [f"batch_size={8 // devices}", "probe_epochs=1", "epochs=2", "freeze_bn=true"]
        command = [sys.executable, "-m", "ltplugins.cli", "finetune", *words, "accelerator=cpu"]
        done = forked.run(command)
        assert done.returncode == 0, done.stderr[-3000:]
        states.append(load(tmp_path / str(devices) / "checkpoints/last.ckpt")["state_dict"])
        assert (tmp_path / str(devices) / "results.json").exists()
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-3, atol=1e-5, msg=key)
    old = load(run / "checkpoints/last.ckpt")["state_dict"]
    weights = [k for k in old if k.startswith("backbone.") and k.endswith("conv1.weight")]
    assert weights and not any(torch.equal(old[key], states[1][key]) for key in weights)
