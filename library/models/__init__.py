"""Model families: which there are, which one a file belongs to, and loading. Imports no torch by itself."""

from library.models.detection import check_source, check_vae, detect_family
from library.models.families import FAMILIES, Family
from library.models.loading import load_model
from library.models.saving import check_target

__all__ = [
    "FAMILIES",
    "Family",
    "check_source",
    "check_target",
    "check_vae",
    "detect_family",
    "load_model",
]
