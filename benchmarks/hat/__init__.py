"""What the scripts about hydrogen transfers share."""
