"""Masked-language-model training of the language model on the texts of the shop."""
