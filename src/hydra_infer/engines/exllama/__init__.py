"""ExLlamaV3 and ExLlamaV2 in this process: one stepper for both, and a runner for each."""
