"""Augment, mix and load images in training. See `vitzoo.images` for the data sets."""
