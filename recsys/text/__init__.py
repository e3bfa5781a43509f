"""Item texts: pretrained language model, tokenizer, and the store of hidden states."""
