"""What the loop is made of: each step joins two or more stages, which do not know one another."""
