"""Weights as data: read and compare the weights of many checkpoints without building modules.

`population` defines the result of `Zoo.weights`; `files` and `reader` read files; `shared` checks that checkpoints fit
one array; `index` lays tensors out in a vector; `distances`, `models` and `tensors` (torch) build on them.

See `vitzoo.weights.representations` for inputs of a model, and `vitzoo.weights.learning` for data sets and scaling.
"""
