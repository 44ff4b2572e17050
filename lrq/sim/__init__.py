"""The offline judge: an OpenAI-compatible server that compares texts. It is no language model."""
