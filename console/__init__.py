"""The pages that show several apps together. Owns no model."""
