"""Readers of other systems' policy documents. They write our words, and know nothing of our files."""
