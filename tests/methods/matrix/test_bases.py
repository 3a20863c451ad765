# SPDX-License-Identifier: MIT
"""Every wrapper over every base of the host at hand: what it says of itself has taken part."""

import warnings
from pathlib import Path

import pytest
import torch

import ltplugins
from ltplugins.core.errors import UserError
from tests.kit.cases import COMPOSED, WRAPPERS, base_of, case_of, wrapped, wrappers_of
from tests.kit.hosts import NAMES, SOLO_HEADS, needs_solo
from tests.kit.runs import build, fit
from tests.kit.tiny import calm_config
from tests.kit.trained import CHECKS, Record

OF_SOLO = sorted({*SOLO_HEADS} - {*NAMES})
TAKEN = [*wrapped(NAMES), *(pytest.param(n, marks=needs_solo) for n in wrapped(OF_SOLO))]
REFUSED = [
    pytest.param(wrapper, base, marks=() if base in NAMES else needs_solo, id=f"{wrapper}_{base}")
    for wrapper, case in WRAPPERS.items()
    for base in case.refuses
]


@pytest.mark.parametrize("name", TAKEN)
def test_a_wrapper_trains_over_every_base(name: str, tmp_path: Path) -> None:
    base, [wrapper], run = base_of(name), wrappers_of(name), case_of(name).run
    cfg = calm_config(tmp_path, name, **({"optimizer__lr": 0.005} if base != "vibcreg" else {}))
    if wrapper == "gh":  # wmse's embedding of two dimensions holds three directions
        cfg.method_kwargs.gh.num_directions = 3
    model, data = build(cfg)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    record = Record()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(model, data, max_epochs=run.epochs, callbacks=[record])
    metrics = trainer.callback_metrics
    assert torch.isfinite(metrics[f"{run.loss}_epoch"])
    assert all(torch.isfinite(v) for k, v in metrics.items() if "loss" in k), metrics
    assert torch.tensor(record.losses).isfinite().all()
    assert any(not torch.equal(before[k], v) for k, v in model.backbone.state_dict().items())
    assert trainer.global_step == len(record.drawn) >= 5
    assert model.cfg.method == base
    assert model.training_step.__func__.__module__.startswith("ltplugins.methods.")
    assert getattr(model, "_views", None) in (None, [])  # nothing of the last step is kept alive
    CHECKS[wrapper](model, metrics, record)


@pytest.mark.parametrize(("wrapper", "base"), REFUSED)
def test_a_base_that_is_not_taken_is_refused_with_one_message(
    wrapper: str, base: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=WRAPPERS[wrapper].refuses[base]):
        build(calm_config(tmp_path, f"{wrapper}_{base}"))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_base_of_the_host_is_wrapped(wrapper: str) -> None:
    """But mae, which yields no embedding."""
    from ltplugins.host import HOST, METHODS

    bases = {*NAMES, *(SOLO_HEADS if HOST.name == "solo" else ())}
    registered = [n for n in ltplugins.register() if n.startswith(f"{wrapper}_")]
    composed = {n.removesuffix(f"_{base_of(n)}") for n in COMPOSED}
    own = {n for n in registered if not n.startswith(tuple(composed))}
    assert own == {f"{wrapper}_{base}" for base in bases}
    assert len(bases) == (18 if HOST.name == "solo" else 7)
    assert f"{wrapper}_mae" not in METHODS


def test_every_wrapper_has_its_check() -> None:
    assert set(CHECKS) == set(WRAPPERS)
