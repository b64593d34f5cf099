"""Pictures for people: what a model of local features sees in an image, and what it is made of."""
