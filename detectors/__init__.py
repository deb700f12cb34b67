"""The networks. `build_detector` makes one from a recipe, `load_published` reads published weights."""
