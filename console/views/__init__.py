"""The pages: check the shape of what was sent, make one domain call, render."""
