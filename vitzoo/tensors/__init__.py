"""Safetensors files without torch: headers, dtypes, content hashes, and flat vectors."""
