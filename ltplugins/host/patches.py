# SPDX-License-Identifier: MIT
"""A ViT's image and patch size, from the crops that it is trained on, for any host.

A ViT is built for one image size and for patches that divide it; by default 224 and 16, with which
28 or 32 pixels fail. Where ``backbone.kwargs`` say neither, the image size is the crop's and the
patch the largest of 16, 8, 4 and 2 pixels that leaves seven patches a side or more.
"""

from omegaconf import DictConfig, OmegaConf, open_dict

from ltplugins.core.errors import UserError

_FAMILIES = ("vit_", "deit_", "deit3_")
_OWN_CONSTRUCTORS = ("mae", "mocov3")  # of solo-learn's: they take no other argument
_PATCHES = (16, 8, 4, 2)
_LEAST = 7  # patches a side


def fit_to_crops(cfg: DictConfig) -> DictConfig:
    """A copy of a host's config whose ViT is built for its crops; of other backbones, the config.

    Raises:
        UserError: no patch divides the crops.
    """
    name, blocks = str(cfg.backbone.name), OmegaConf.select(cfg, "augmentations")
    if not name.startswith(_FAMILIES) or not blocks:
        return cfg
    sizes = list(dict.fromkeys(int(block.crop_size) for block in blocks))
    kwargs = dict(OmegaConf.select(cfg, "backbone.kwargs") or {})
    if "img_size" not in kwargs and sizes[0] != 224:
        kwargs["img_size"] = sizes[0]
        if "patch_size" not in kwargs and not OmegaConf.select(cfg, "backbone.pretrained"):
            kwargs["patch_size"] = _patch(name, sizes)
    if len(sizes) > 1 and str(cfg.method).rpartition("_")[2] not in _OWN_CONSTRUCTORS:
        kwargs.setdefault("dynamic_img_size", True)
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.backbone.kwargs = kwargs
    return cfg


def _patch(name: str, sizes: list[int]) -> int:
    fitting = [p for p in _PATCHES if all(s % p == 0 for s in sizes) and sizes[0] >= _LEAST * p]
    if not fitting:
        raise UserError(
            f"backbone.name: {name} cuts images into squares, and none of {_PATCHES} pixels suits "
            f"crops of {', '.join(map(str, sizes))}. Set crop_size to a multiple of 4 such as 32, "
            f"or backbone.kwargs (img_size, patch_size)."
        )
    return fitting[0]
