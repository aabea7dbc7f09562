# %% [markdown]
# # The whole fleet from one file
#
# `hydra.yaml` names the machines, the servers on them and their models. Everything else is made from it.

# %%
from pathlib import Path

import hydra_infer as hydra

FILE = Path("../examples/homelab/hydra.yaml")
fleet = hydra.Fleet.from_file(FILE)
print(*FILE.read_text().splitlines()[:32], sep="\n")

# %% [markdown]
# ## What fits, and what evicts what
#
# Every model on its own server's cards.

# %%
planned = fleet.plan()
planned

# %% [markdown]
# Each row has its whole plan:

# %%
planned.rows[0].plan

# %% [markdown]
# ## The servers' own files
#
# TabbyAPI's `config.yml`, LiteLLM's `config.yaml` and what starts them, as `fleet.render("out/")` would write them. Here only
# their names, and the beginning of one:

# %%
import tempfile

with tempfile.TemporaryDirectory() as folder:
    out = Path(folder)
    fleet.render(out)
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    print(*names, sep="\n")
    print()
    print(next(out.rglob("config.yml")).read_text()[:900])
