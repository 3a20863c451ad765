# SPDX-License-Identifier: MIT
"""``land_pack``: a picture of the Earth and its land cover, cut into tiles, crops and a pool.

Pure NumPy but for the decoding of two files. As data go: ``maps`` (what lies in the package),
``windows`` (classes under every place of a tile), ``blocks`` (a spatial split), then ``tiles``
(classification), ``pool`` (out of distribution) and ``crops`` (segmentation); ``source`` makes of
them what the engines take.
"""
