"""Kubernetes documents, read one to one: texts → objects (`read_cluster`) → a Scene (`lower`).

Pure but for `io`. Prints nothing; what is to be said comes as findings.
"""
