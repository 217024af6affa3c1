"""The pages, one file each, and the parts they share."""
