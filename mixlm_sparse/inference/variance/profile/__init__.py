"""Profile likelihood: how the criterion rises as one parameter is held and the rest adapt."""
