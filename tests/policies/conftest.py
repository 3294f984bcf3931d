"""Makes what tests of policies share (scenes, the naive evaluator, labs) importable from the folders below."""
