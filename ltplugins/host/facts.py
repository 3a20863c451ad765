# SPDX-License-Identifier: MIT
"""Facts about the hosts' methods by name: what the wrappers over them must know beforehand.

A base that is not listed, such as one that a user has registered, is taken to be an ordinary one.
"""

from dataclasses import dataclass

_ARXIV = "https://arxiv.org/abs/"
_SWAV, _NNCLR = f"{_ARXIV}2006.09882", f"{_ARXIV}2104.14548"


@dataclass(frozen=True)
class Base:
    """A method of a host.

    Attributes:
        title: what its authors call it.
        paper: where it is described.
        summary: what it does, in a line.
        packaged: the stand-in has it too.
        labels: it learns from labels.
        yields_z: it returns an embedding that a wrapper can work on.
        width_key: the key of ``method_kwargs`` that holds the width of z.
        temperature: its loss has a single temperature, in an attribute of that name.
        fixed_length: it keeps a row per draw of an epoch, as many as the first epoch has.
        whole_batches: solo-learn's code of it takes batches of one size alone.
        plain_head: its projector is a plain one, which ``method_kwargs.proj_head`` can exchange.
        views: large views of an image that a step takes at least.
        one_branch: why a second branch, or its norms, would have no part in the loss; empty if it
            has.
    """

    title: str = ""
    paper: str = ""
    summary: str = ""
    packaged: bool = False
    labels: bool = False
    yields_z: bool = True
    width_key: str = "proj_output_dim"
    temperature: bool = False
    fixed_length: bool = False
    whole_batches: bool = False
    plain_head: bool = False
    views: int = 2
    one_branch: str = ""


BASES: dict[str, Base] = {
    "barlow_twins": Base(
        "Barlow Twins",
        f"{_ARXIV}2103.03230",
        "makes the correlations of two views' features the identity",
        packaged=True,
    ),
    "byol": Base(
        "BYOL",
        f"{_ARXIV}2006.07733",
        "predicts an EMA twin's embedding of the other view",
        packaged=True,
    ),
    "mocov2plus": Base(
        "MoCo v2+",
        f"{_ARXIV}2003.04297",
        "contrasts with a queue of an EMA twin's embeddings, both views as queries",
        packaged=True,
        temperature=True,
        whole_batches=True,
    ),
    "simclr": Base(
        "SimCLR",
        f"{_ARXIV}2002.05709",
        "contrasts two views of an image with all other images of the batch",
        packaged=True,
        temperature=True,
        plain_head=True,
    ),
    "simsiam": Base(
        "SimSiam",
        f"{_ARXIV}2011.10566",
        "predicts the other view's embedding, whose gradient is stopped",
        packaged=True,
    ),
    "supcon": Base(
        "SupCon",
        f"{_ARXIV}2004.11362",
        "contrasts with all images of the batch, those of the same class as positives",
        packaged=True,
        labels=True,
        temperature=True,
        plain_head=True,
    ),
    "vicreg": Base(
        "VICReg",
        f"{_ARXIV}2105.04906",
        "keeps each feature's variance up and its covariances down",
        packaged=True,
    ),
    # Of solo-learn alone.
    "all4one": Base(
        "All4One",
        f"{_ARXIV}2303.09417",
        temperature=True,
        whole_batches=True,
        one_branch="applies its heads outside of a view's forward pass, where there is no branch",
    ),
    "deepclusterv2": Base(
        "DeepCluster v2", _SWAV, temperature=True, fixed_length=True, whole_batches=True
    ),
    "dino": Base("DINO", f"{_ARXIV}2104.14294", width_key="num_prototypes"),
    "mae": Base("MAE", f"{_ARXIV}2111.06377", yields_z=False, views=1),
    "mocov3": Base("MoCo v3", f"{_ARXIV}2104.02057", temperature=True),
    "nnbyol": Base("NNBYOL", _NNCLR, whole_batches=True),
    "nnclr": Base("NNCLR", _NNCLR, temperature=True, whole_batches=True),
    "nnsiam": Base("NNSiam", _NNCLR, whole_batches=True),
    "ressl": Base(
        "ReSSL",
        f"{_ARXIV}2107.09282",
        whole_batches=True,
        one_branch="has only the first view go through the network that is trained",
    ),
    "swav": Base("SwAV", _SWAV, temperature=True, whole_batches=True),
    "vibcreg": Base("VIbCReg", f"{_ARXIV}2109.00783"),
    "wmse": Base("W-MSE", f"{_ARXIV}2007.06346", whole_batches=True),
    # Entries of solo-learn's METHODS that are no methods.
    "base": Base(yields_z=False),
    "linear": Base(yields_z=False),
}

_ORDINARY = Base()


def facts_of(base: str) -> Base:
    """What is known about a base."""
    return BASES.get(base, _ORDINARY)


def packaged_bases() -> list[str]:
    """The bases that every host has, in the order of the alphabet."""
    return sorted(name for name, base in BASES.items() if base.packaged)


def configured_bases() -> list[str]:
    """The bases whose values stand in a file of ``conf/method``: those that yield z."""
    return sorted(name for name, base in BASES.items() if base.yields_z)
