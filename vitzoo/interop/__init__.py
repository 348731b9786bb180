"""Import and export models of other libraries.

`authors` reads the release of the paper's authors. `timm` converts models, `timm_names` converts tensor names, and
`timm_folder` writes a folder for timm. `onnx` writes ONNX files. `preflight` refuses exports without importing
torch.
"""
