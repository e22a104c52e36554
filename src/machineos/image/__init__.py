"""Images: recipes, builds, archives of any origin, and the verity layers they become."""
