"""Weights as data: read and checked without building a module.

`schema` knows the tensors' names and shapes, `header` reads and checks a safetensors header, `content` digests the
whole file.
"""
