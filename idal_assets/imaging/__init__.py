"""Cases as they come from disk: layouts, what they say of channels and labels, verification, and the phantoms."""
