"""Files: whole outputs, checked reading, sparse matrices, scratch folders."""
