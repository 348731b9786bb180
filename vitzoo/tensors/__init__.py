"""Read and check safetensors files without torch: headers, number types and content hashes."""
