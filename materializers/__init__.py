"""Objects to files and back, exactly. One module per library; each is imported when a value of its library arrives."""
