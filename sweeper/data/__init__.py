"""From files, folders and Hub names to prepared splits; imports neither torch, transformers nor datasets."""
