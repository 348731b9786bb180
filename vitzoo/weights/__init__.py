"""Weights as data: read, compared and represented without building a module.

Files: `schema` knows the tensors' names and shapes, `header` reads and checks a safetensors header, `content` digests a
whole file, `reader` reads tensors of one into memory, `dtypes` and `floats` convert.

Populations: `population` is what `Zoo.weights` gives; `shared` says what members must share, `index` and `matrix` how
they lie in arrays; `distances`, `trajectory`, `models` and `tensors` (torch) are made of it.

Representations: `representation` makes them by name out of `statistics`, `tokens` and `graph`.

Learning: `dataset` with `targets`, and `scaling`, fitted on train alone.
"""
