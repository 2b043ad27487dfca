"""Objects and their boxes: a head on the backbone's maps, and how far each box can be trusted."""
