"""Factor C = Lambda' Z'WZ Lambda + I for given blocks, behind one interface."""
