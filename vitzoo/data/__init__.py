"""The parts of loading a data set that images and texts share. See `vitzoo.images` and `vitzoo.text`."""
