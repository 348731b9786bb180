"""To and from what others keep their models in.

`authors` reads the release of the paper's authors, `timm` gives and takes timm's models, `timm_names` their tensors'
names alone, `onnx` writes ONNX files.
"""
