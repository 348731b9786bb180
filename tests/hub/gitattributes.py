"""The `.gitattributes` that the Hub puts into a new repo, and which files it sends to LFS.

Both texts are the Hub's to the byte: the tests compare them with the blob ids that public repos show.
"""

from fnmatch import fnmatchcase

_LFS = " filter=lfs diff=lfs merge=lfs -text"

_MODEL = """
    *.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot
    *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm
    *.xz *.zip *.zst *tfevents*
"""
_MEDIA = {
    "Audio files - uncompressed": "*.pcm *.sam *.raw",
    "Audio files - compressed": "*.aac *.flac *.mp3 *.ogg *.wav",
    "Image files - uncompressed": "*.bmp *.gif *.png *.tiff",
    "Image files - compressed": "*.jpg *.jpeg *.webp",
    "Video files - compressed": "*.mp4 *.webm",
}


def default_gitattributes(repo_type: str) -> bytes:
    """What a new repo of this type starts with."""
    patterns = _MODEL.split()
    if repo_type == "dataset":
        after = patterns.index("*.lfs.*") + 1
        patterns[after:after] = ["*.lz4", "*.mds"]
    lines = [pattern + _LFS for pattern in patterns]
    if repo_type == "dataset":
        for title, media in _MEDIA.items():
            lines += [f"# {title}", *(pattern + _LFS for pattern in media.split())]
    return "".join(f"{line}\n" for line in lines).encode()


def is_lfs_path(path: str, gitattributes: bytes) -> bool:
    """Whether the last line that matches the path says `filter=lfs`, as git reads it (negative patterns left out)."""
    answer = False
    for line in gitattributes.decode(errors="replace").splitlines():
        pattern, *attributes = line.split() or [""]
        if not pattern or pattern.startswith("#"):
            continue
        tried = path if "/" in pattern else path.rsplit("/", 1)[-1]
        if fnmatchcase(tried, pattern.lstrip("/").replace("**/", "*")):
            answer = "filter=lfs" in attributes
    return answer
