"""A KubeVirt cluster in a process, over real HTTP. Its checkers share no judgement with the code they check."""
