# SPDX-License-Identifier: MIT
"""What we offer, described once: names, papers, and how ``gh_simclr`` is read (GH over SimCLR).

README's table, the heads of docs/methods.md, ``ltplugins methods`` and Hydra's nodes come from
here; what a method needs of the data its class declares. Importing this file imports no torch.

To add a wrapper or a method: one entry. CONTRIBUTING.md names the other four files.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ltplugins.host.facts import Base, configured_bases, facts_of


@dataclass(frozen=True)
class Entry:
    """A wrapper (a mixin that adds its term to a base's step) or a method (with its own step).

    Attributes:
        name: ``method`` in a config, or its prefix.
        mixin: the class, ``module:Class`` in this package.
        title: what it is called in prose.
        venue: where the paper came out, with ``year``.
        paper: its address.
        code: the official code at a commit; empty where none is known.
        summary: what it does about the tail.
        formula: the loss in a line, its letters those of docs/methods.md.
        takes: of a wrapper: whether it goes over a base.
    """

    name: str
    mixin: str
    title: str
    venue: str
    year: int
    paper: str
    code: str
    summary: str
    formula: str
    kind: Literal["wrapper", "method"] = "wrapper"
    takes: Callable[[Base], bool] = lambda base: True

    @property
    def usage(self) -> str:
        """The name as it is written in a config: ``gh_<base>``, ``mttv``."""
        return f"{self.name}_<base>" if self.kind == "wrapper" else self.name


@dataclass(frozen=True)
class Composition:
    """A wrapper over a wrapper over any base: ``gh_colt_<base>``.

    Attributes:
        config: what the two together add to the config of each.
    """

    outer: str
    inner: str
    config: Mapping[str, Any] = field(default_factory=dict)


_ARXIV = "https://arxiv.org/abs/"
_GITHUB = "https://github.com/"

_ENTRIES = (
    Entry(
        name="gh",
        mixin="gh:GHMixin",
        title="Geometric Harmonization",
        venue="NeurIPS",
        year=2023,
        paper=f"{_ARXIV}2310.17622",
        code=f"{_GITHUB}MediaBrain-SJTU/Geometric-Harmonization at 9f7057c",
        summary="spreads categories, not images, over the embedding space",
        formula="t = normalise(z M^T),  q = Sinkhorn(t / 0.05, prior),  "
        "L = L_base - w(epoch) [q_1 log p_2 + q_2 log p_1]",
    ),
    Entry(
        name="colt",
        mixin="colt:COLTMixin",
        title="COLT",
        venue="ICLR",
        year=2023,
        paper=f"{_ARXIV}2306.04934",
        code=f"{_GITHUB}JianhongBai/COLT at 3c4507b",
        summary="fills sparse parts of the space with out-of-distribution images",
        formula="L = L_base + alpha L_SCL,  L_SCL: supervised contrast of the two domains",
        takes=lambda base: not base.fixed_length,
    ),
    Entry(
        name="mv",
        mixin="mv:MVMixin",
        title="More views",
        venue="arXiv",
        year=2025,
        paper=f"{_ARXIV}2509.08469",
        code=f"{_GITHUB}anonymouspersoncscv/MTTV at 247efd5",
        summary="learns from every pair of V views of an image, over any base (ours, after MTTV)",
        formula="L = 2 / (V (V - 1)) sum_{i < j} L_base(view i, view j)",
    ),
    Entry(
        name="ts",
        mixin="ts:TSMixin",
        title="Temperature schedules",
        venue="ICLR",
        year=2023,
        paper=f"{_ARXIV}2303.13664",
        code=f"{_GITHUB}Annusha/temperature_schedules at 3ac1db6",
        summary="swings between group-wise and instance-wise contrast",
        formula="tau(e) = tau- + (tau+ - tau-) (1 + cos(pi e / T)) / 2,  "
        "tau- = 0.1, tau+ = 1.0, T = 10% of the run",
        takes=lambda base: base.temperature,
    ),
    Entry(
        name="sdclr",
        mixin="sdclr:SDCLRMixin",
        title="SDCLR",
        venue="ICML",
        year=2021,
        paper=f"{_ARXIV}2106.02990",
        code=f"{_GITHUB}VITA-Group/SDCLR at f1490fc",
        summary="contrasts with a pruned copy that forgets rare images",
        formula="L = L_base(f_w(view 1), f_{w * m}(view 2)),  "
        "m = [|w| >= threshold of the epoch's start]",
        takes=lambda base: not base.one_branch,
    ),
    Entry(
        name="bcl",
        mixin="bcl:BCLMixin",
        title="BCL",
        venue="ICML",
        year=2022,
        paper=f"{_ARXIV}2205.12693",
        code=f"{_GITHUB}MediaBrain-SJTU/BCL at a2342f8",
        summary="augments poorly learnt images more strongly",
        formula="M_i <- 0.97 M_i + 0.03 L_i,  h_i = 1/2 (s_i / max |s| + 1),  s = zscore(M)",
    ),
    Entry(
        name="mttv",
        kind="method",
        mixin="mttv:MTTVMixin",
        title="MTTV",
        venue="arXiv",
        year=2025,
        paper=f"{_ARXIV}2509.08469",
        code=f"{_GITHUB}anonymouspersoncscv/MTTV at 247efd5",
        summary="fuses views of two images; filters similarities",
        formula="L = -log mean_a p_a,  p_a = exp(s_aa'/t) [kept] / sum_{b != a, kept} exp(s_ab/t)",
    ),
    Entry(
        name="focal",
        kind="method",
        mixin="focal:FocalMixin",
        title="Focal-SimCLR",
        venue="ICCV",
        year=2017,
        paper=f"{_ARXIV}1708.02002",
        code=f"{_GITHUB}MediaBrain-SJTU/Geometric-Harmonization at 9f7057c",
        summary="weighs easy anchors down; a baseline of the GH paper",
        formula="L = -mean_a (1 - p_a)^gamma log p_a,  "
        "p_a = exp(s_aa'/t) / sum_{b != a} exp(s_ab/t),  gamma = 2",
    ),
    Entry(
        name="iccl",
        kind="method",
        mixin="iccl:ICCLMixin",
        title="ICCL-style",
        venue="arXiv",
        year=2021,
        paper=f"{_ARXIV}2110.10048",
        code="",
        summary="mixes two samplers' images, contrasts with centroids; then `ltplugins balance`",
        formula="L = (1 - p^2) (L_ce^u + a L_cc^u) + p^2 (L_ce^f + a L_cc^f)",
    ),
    Entry(
        name="gml",
        kind="method",
        mixin="gml:GMLMixin",
        title="GML",
        venue="ICML",
        year=2023,
        paper=f"{_ARXIV}2305.01160",
        code=f"{_GITHUB}bluecdm/Long-tailed-recognition at 1ff816c",
        summary="logit adjustment inside a contrastive loss",
        formula="L = CE(30 cos + log pi) + CE(log mean_{k of c} exp(q.k/T) + log pi)  "
        "[+ KL to a teacher or the EMA twin]",
    ),
)

WRAPPERS: dict[str, Entry] = {e.name: e for e in _ENTRIES if e.kind == "wrapper"}
METHODS: dict[str, Entry] = {e.name: e for e in _ENTRIES if e.kind == "method"}

COMPOSED = (
    Composition("gh", "colt"),
    Composition("gh", "sdclr"),
    Composition("gh", "ts"),
    # The paper's own setting over SDCLR.
    Composition("bcl", "sdclr", {"method_kwargs": {"bcl": {"variant": "D"}}}),
)


def load_mixin(name: str) -> Any:
    """Import the mixin class of a wrapper or method of ours."""
    module, _, attribute = {**WRAPPERS, **METHODS}[name].mixin.partition(":")
    return getattr(importlib.import_module(f"ltplugins.methods.{module}"), attribute)


def option_classes(method: str) -> dict[str, type]:
    """The typed blocks of ours that a method's config holds, by their path in the YAML."""
    if method in METHODS:
        return {"method_kwargs": load_mixin(method).method_config}
    mixins = [load_mixin(name) for name in split_name(method)[0]]
    return {f"method_kwargs.{m.wrapper_name}": m.wrapper_config for m in mixins}


def split_name(method: str) -> tuple[list[str], str]:
    """The wrappers of a name, the outermost first, and what they are over."""
    wrappers = []
    head, _, rest = method.partition("_")
    while rest and head in WRAPPERS:
        wrappers.append(head)
        method = rest
        head, _, rest = method.partition("_")
    return wrappers, method


def compositions() -> dict[str, dict[str, Any]]:
    """Hydra's node of every wrapped name over a base that has a file in ``conf/method``.

    A node lists the files of its parts, the base first, and adds the name.
    """
    chains = [Composition(name, "") for name in WRAPPERS] + [*COMPOSED]
    nodes = {}
    for chain in chains:
        wrappers = [name for name in (chain.outer, chain.inner) if name]
        for base in configured_bases():
            if all(WRAPPERS[name].takes(facts_of(base)) for name in wrappers):
                name = "_".join([*wrappers, base])
                parts = [base, *reversed(wrappers), "_self_"]
                nodes[name] = {"defaults": parts, "method": name, **chain.config}
    return nodes
