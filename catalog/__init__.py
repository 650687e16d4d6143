"""What exists, who made it from what: records in the stores, and an SQL index that follows them."""
