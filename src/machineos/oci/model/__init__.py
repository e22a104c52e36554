"""Documents, references and the interface of a repository. No network, no folder."""
