"""Members of a saved file, changed on purpose: with the checksums of a file that was so written."""

from __future__ import annotations

import hashlib
import json


def sealed(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return the members with the checksums that are right for them.

    A test of what loading checks beside checksums needs a file that passes them.  A document that
    is none is left alone.
    """
    try:
        document = json.loads(members["fit.json"])
        document.pop("checksums", None)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return members
    sums = {"fit.json": hashlib.sha256(text.encode()).hexdigest()}
    for name, content in members.items():
        if name.endswith(".npy"):
            sums[name.removesuffix(".npy")] = hashlib.sha256(content).hexdigest()
    document["checksums"] = sums
    return {**members, "fit.json": json.dumps(document).encode()}
