# SPDX-License-Identifier: MIT
"""Build ltplugins/data/packs/emoji_pack.npz from the npm package emoji-datasource-google.

    npm pack emoji-datasource-google@16.0.0
    python scripts/packs/emoji.py --package emoji-datasource-google-16.0.0.tgz

Google's emoji art (Noto Emoji) on black, as grey images of 28 pixels. Flags are left out: their
art has another licence. The bytes are the same on every run with one version of Pillow. After a
change, put the printed hash into ltplugins/data/sources/packs.py.
"""

import argparse
import json
import logging
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fashion import PACKS, write_npz
from PIL import Image

from ltplugins.core.files import sha256
from ltplugins.data.sources.packs import EMOJI_CATEGORIES

PACKAGE_SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
SIDE = 28

log = logging.getLogger("emoji_pack")


def entries(emoji: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(file, category) of every image by Google, variants of skin tone too; sorted by category."""
    found = []
    for entry in emoji:
        for image in (entry, *entry.get("skin_variations", {}).values()):
            if image["has_img_google"] and entry["category"] in EMOJI_CATEGORIES:
                found.append((image["image"], entry["category"]))
    # Images of one kind beside each other compress better; every reader shuffles anyway.
    return sorted(found, key=lambda f: (EMOJI_CATEGORIES.index(f[1]), f[0]))


def to_grey(png: bytes) -> np.ndarray:
    """The art on black, as the ink of Fashion-MNIST is: uint8 [28, 28]."""
    art = Image.open(BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", art.size, (0, 0, 0, 255))
    canvas.alpha_composite(art)
    return np.asarray(canvas.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def collect(package: Path) -> dict[str, np.ndarray]:
    """``images`` uint8 [N, 28, 28] and ``labels`` uint8 [N], the category of each."""
    with tarfile.open(package) as archive:
        files = {Path(m.name).name: m for m in archive if "/img/google/64/" in m.name}

        def read(member: str | tarfile.TarInfo) -> bytes:
            opened = archive.extractfile(member)
            assert opened is not None
            return opened.read()

        chosen = entries(json.loads(read("package/emoji.json")))
        images = np.stack([to_grey(read(files[name])) for name, _ in chosen])
    labels = np.array([EMOJI_CATEGORIES.index(c) for _, c in chosen], dtype=np.uint8)
    return {"images": images, "labels": labels}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help="the .tgz of npm pack")
    parser.add_argument("--out", type=Path, default=PACKS / "emoji_pack.npz")
    args = parser.parse_args()
    if sha256(args.package) != PACKAGE_SHA256:
        raise SystemExit(f"{args.package}: expected version 16.0.0, sha256 {PACKAGE_SHA256}.")
    arrays = collect(args.package)
    write_npz(args.out, arrays)
    size = args.out.stat().st_size
    log.info("%s: %d images, %d bytes", args.out, len(arrays["images"]), size)
    log.info("sha256 %s", sha256(args.out))


if __name__ == "__main__":
    main()
