"""Find the shortcut a JAX classifier has learned, see where it comes from, and take it out again."""
