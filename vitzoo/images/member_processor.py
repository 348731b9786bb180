"""The image processor of a member: transformers' own, which is not saved over a member's.

A module of its own, because it imports transformers. See `vitzoo.images.processor` for preprocessor_config.json.
"""

import os
from typing import Any

from transformers import ViTImageProcessorPil

from vitzoo.records.files import refuse_member_folder


class MemberImageProcessor(ViTImageProcessorPil):
    """Processor of a member's images, saved as transformers' ``ViTImageProcessor``."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, or raise MemberOverwriteError for a member's folder."""
        refuse_member_folder(save_directory)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON, which any transformers user can load."""
        return super().to_dict() | {"image_processor_type": "ViTImageProcessor"}
