"""To and from what others keep their models in.

`authors` reads the release of the paper's authors, `timm` gives and takes timm's models, `timm_names` their tensors'
names alone, `timm_folder` writes what timm loads by name, `onnx` writes ONNX files.
"""
