"""Item texts: the pretrained language model, its tokenizer, and the store of its hidden states."""
