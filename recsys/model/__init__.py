"""The model: item encoder, user encoder, and the head that makes the served score of them."""
