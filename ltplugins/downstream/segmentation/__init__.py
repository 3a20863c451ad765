# SPDX-License-Identifier: MIT
"""Segmentation on a trained encoder: a class for every pixel.

``options`` (keys), ``pairs`` and ``formats`` (images with masks), ``views`` and ``data`` (what a
Trainer takes), ``decoders`` (networks of segmentation_models_pytorch on our encoders), ``losses``,
``segmenter`` (the module that is trained), ``scores`` and ``results`` (numbers).
"""
