"""What happens to slopes before they leave a client."""

from __future__ import annotations

from baffle.mechanisms.clip import clip
from baffle.mechanisms.private import GaussianPrivacy, Privacy, Protection, RandomisedPrivacy
from baffle.mechanisms.quantise import MISSING, Quantiser

__all__ = ["MISSING", "GaussianPrivacy", "Privacy", "Protection", "Quantiser", "RandomisedPrivacy", "clip"]
