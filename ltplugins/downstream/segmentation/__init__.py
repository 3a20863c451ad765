# SPDX-License-Identifier: MIT
"""Segmentation on a trained encoder: a class for every pixel.

``options`` (keys); ``pairs``, ``formats`` and ``sets`` (images with masks); ``views`` and ``data``
(what a Trainer takes); ``decoders`` (networks of segmentation_models_pytorch on our encoders);
``losses``; ``segmenter`` (the module that is trained); ``scores`` and ``results`` (numbers);
``examples`` (pictures); ``conclude`` (what writes both); ``gather`` (finished runs for a report).
"""
