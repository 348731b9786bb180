"""Weights as data: the weights of many checkpoints, read and compared without building a module.

`population` defines the result of `Zoo.weights`; `files` and `reader` read files; `shared` checks what checkpoints have
in common; `index` and `matrix` lay tensors out in arrays; `distances`, `models` and `tensors` (torch) build on them.

See `vitzoo.weights.representations` for inputs of a model, and `vitzoo.weights.learning` for data sets and scaling.
"""
