"""The data: raw logs by adapters, row checks, pseudonyms, catalogue, histories, feedback."""
