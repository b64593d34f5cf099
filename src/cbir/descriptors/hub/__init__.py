"""Models of the Hugging Face hub: known names, what a repository offers, and fetching it."""
