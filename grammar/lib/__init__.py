"""Published patterns as .attn files: `import NAME` finds them here."""
