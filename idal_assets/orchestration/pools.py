"""What only so many steps can have at once, in all runs of an instance together."""

ACCELERATOR = "accelerator"
"""The card, or the cores where there is none: whatever trains or segments takes it."""
