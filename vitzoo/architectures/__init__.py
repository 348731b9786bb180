"""Architectures without torch: tensor names and order, shapes, and what a config may say."""
