"""Text to `MixedFormula`: R's grammar and the algebra of terms; nothing is evaluated."""
