"""What is served: arms, their bundles, and the items that were added to them."""
