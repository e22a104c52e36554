"""From bytes of a stranger to a document, and images, that may be acted on."""
