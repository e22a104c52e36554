"""Images as other programs hand them over: archives, container engines, and who signed them."""
