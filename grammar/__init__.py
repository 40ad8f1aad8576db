"""The grammar of .attn files."""
