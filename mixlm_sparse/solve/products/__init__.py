"""Everything the criterion needs that does not depend on theta."""
