# %% [markdown]
# # From ExLlamaV2 to ExLlamaV3, and a way back
#
# TabbyAPI no longer loads EXL2. What would the same model take as EXL3, what has to change in the old `config.yml`, and how
# does the change go in and out again? No server is touched here: the files lie in a temporary folder.

# %%
import tempfile
from pathlib import Path

import hydra_infer as hydra
from hydra_infer import migrate

# %% [markdown]
# ## At which rate does it fit?
#
# EXL3 is made from the original weights, so the rate is to be chosen. With 16K of context on these cards:

# %%
hydra.survey(
    "../examples/homelab/models/Llama-3.1-70B.json",
    gpus=["RTX 5090", "RTX 4090"],
    contexts="16k",
    caches="q8",
    bpws=[3.5, 4, 4.5, 5, 6, 8],
    format="exl3",
)

# %% [markdown]
# ## The old configuration
#
# It has drafting in a place where TabbyAPI never looked, and names models that are refused now.

# %%
old = """\
model:
  model_dir: /mnt/models
  model_name: Midnight-Miqu-70B-EXL2-2.5bpw # the old one
  max_seq_len: 16384
  speculative_decoding:
    enabled: true
    draft_model: /mnt/models/Llama-3.2-1B-EXL2-4.0bpw
    num_speculative_tokens: 5
"""
done = migrate.translate(old, model="Midnight-Miqu-70B-EXL3-5bpw", draft="Llama-3.2-1B-EXL3-4bpw")
print(done.text)

# %% [markdown]
# Each change with its reason:

# %%
for change in done.changes:
    print("-", change)

# %% [markdown]
# ## In, and out again
#
# With commands to stop and start it, `cutover` puts everything back by itself where the new server does not answer with its
# model.

# %%
with tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "config.yml"
    config.write_text(old)
    move = migrate.Move.of(config=config, new_config=done.text)
    print(migrate.cutover(Path(folder) / "migration", move, progress=False).side, config.read_text() == done.text)
    print(migrate.rollback(Path(folder) / "migration", progress=False).side, config.read_text() == old)
