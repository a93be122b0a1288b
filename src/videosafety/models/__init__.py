"""Video language models of Hugging Face behind one small protocol: family, checkpoint, generate. Torch lives here."""
