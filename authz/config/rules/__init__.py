"""What a configuration must keep to beyond its types, and what is worth a notice."""
