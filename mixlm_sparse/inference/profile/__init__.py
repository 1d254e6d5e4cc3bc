"""Profile likelihood: how the criterion rises as one parameter is held and the rest adapt."""

from __future__ import annotations

from mixlm_sparse.inference.profile.compute import profile
from mixlm_sparse.inference.profile.curve import ParameterProfile, Profile

__all__ = ["ParameterProfile", "Profile", "profile"]
